#include "server/http/http_parser.h"

#include <algorithm>
#include <utility>

namespace sluice {

HttpParser::HttpParser(size_t max_head_bytes) : max_head_bytes_(max_head_bytes) {}

HttpParser::Event HttpParser::Next(absl::string_view in, size_t* used) {
  *used = 0;
  switch (state_) {
    case State::kHead:
      return TakeHead(in, used);
    case State::kLength:
      return TakeLength(in, used);
    case State::kChunked:
      return TakeChunked(in, used);
    case State::kEnd:
      state_ = State::kHead;
      head_ = HttpHead();
      return Event::kEnd;
  }
  return Event::kFault;
}

HttpParser::Event HttpParser::TakeHead(absl::string_view in, size_t* used) {
  if (!scanner_.has_value()) scanner_.emplace(max_head_bytes_);
  const size_t size = scanner_->Scan(in);
  if (scanner_->fault().status != 0) return Refuse(scanner_->fault());
  if (size == 0) return Event::kMore;
  const size_t skipped = scanner_->skipped();
  scanner_.reset();
  HttpFault fault = ParseHttpHead(in.substr(skipped, size - skipped), &head_);
  if (fault.status != 0) return Refuse(std::move(fault));
  *used = size;
  left_ = head_.content_length;
  chunks_ = ChunkDecoder();
  state_ = head_.chunked ? State::kChunked : left_ > 0 ? State::kLength : State::kEnd;
  return Event::kHead;
}

HttpParser::Event HttpParser::TakeLength(absl::string_view in, size_t* used) {
  if (in.empty()) return Event::kMore;
  *used = static_cast<size_t>(std::min<uint64_t>(left_, in.size()));
  body_ = in.substr(0, *used);
  left_ -= *used;
  if (left_ == 0) state_ = State::kEnd;
  return Event::kBody;
}

HttpParser::Event HttpParser::TakeChunked(absl::string_view in, size_t* used) {
  while (true) {
    size_t part = 0;
    const ChunkDecoder::Event event = chunks_.Next(in.substr(*used), &part);
    *used += part;
    switch (event) {
      case ChunkDecoder::Event::kMore:
        if (part == 0) return Event::kMore;
        break;
      case ChunkDecoder::Event::kData:
        body_ = chunks_.data();
        return Event::kBody;
      case ChunkDecoder::Event::kEnd:
        state_ = State::kEnd;
        return Next(in, &part);
      case ChunkDecoder::Event::kFault:
        return Refuse({400, chunks_.why()});
    }
  }
}

HttpParser::Event HttpParser::Refuse(HttpFault fault) {
  fault_ = std::move(fault);
  return Event::kFault;
}

}  // namespace sluice
