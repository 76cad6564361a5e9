#include "server/http/chunk_decoder.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace sluice {
namespace {

constexpr size_t kMaxLine = 1024;
constexpr size_t kMaxTrailer = 4096;
// Size lines may take what 16 bytes and two for each byte of data allow, and this much more in all.
constexpr uint64_t kMaxOverhead = 16 * 1024;
constexpr size_t kMaxDigits = 15;  // of a size: more than any body has

bool IsText(char c) {
  const unsigned char byte = static_cast<unsigned char>(c);
  return (byte >= 0x20 && byte != 0x7f) || byte == '\t';
}

// Spaces, then ';' and what it says: nobody here needs to know.
bool IsExtension(absl::string_view text) {
  if (text.empty()) return true;
  const size_t begin = text.find_first_not_of(" \t");
  return begin != absl::string_view::npos && text[begin] == ';';
}

}  // namespace

ChunkDecoder::Event ChunkDecoder::Next(absl::string_view in, size_t* used) {
  *used = 0;
  switch (state_) {
    case State::kSize:
      return TakeSize(in, used);
    case State::kData:
      return TakeData(in, used);
    case State::kDataEnd:
      return TakeDataEnd(in, used);
    case State::kTrailer:
      return TakeTrailer(in, used);
  }
  return Event::kFault;
}

ChunkDecoder::Event ChunkDecoder::TakeSize(absl::string_view in, size_t* used) {
  absl::string_view line;
  const Event event = TakeLine(in, &line, used);
  if (event != Event::kData) return event;
  size_t digits = 0;
  left_ = 0;
  while (digits < line.size() && absl::ascii_isxdigit(static_cast<unsigned char>(line[digits]))) {
    if (digits == kMaxDigits) return Refuse("a chunk's size is too large");
    const char c = absl::ascii_tolower(static_cast<unsigned char>(line[digits++]));
    left_ = left_ * 16 + static_cast<uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
  }
  if (digits == 0) return Refuse("a chunk's size is no hexadecimal number");
  if (!IsExtension(line.substr(digits))) return Refuse("a chunk's size is followed by no ';'");
  const uint64_t allowed = 16 + 2 * std::min<uint64_t>(left_, kMaxOverhead);
  overhead_ += *used;
  overhead_ -= std::min(overhead_, allowed);
  if (overhead_ > kMaxOverhead) return Refuse("the chunks are mostly framing");
  state_ = left_ == 0 ? State::kTrailer : State::kData;
  return Event::kMore;
}

ChunkDecoder::Event ChunkDecoder::TakeData(absl::string_view in, size_t* used) {
  if (in.empty()) return Event::kMore;
  *used = static_cast<size_t>(std::min<uint64_t>(left_, in.size()));
  data_ = in.substr(0, *used);
  left_ -= *used;
  if (left_ == 0) state_ = State::kDataEnd;
  return Event::kData;
}

ChunkDecoder::Event ChunkDecoder::TakeDataEnd(absl::string_view in, size_t* used) {
  if (in.empty() || in == "\r") return Event::kMore;
  if (in.substr(0, 2) != "\r\n") return Refuse("a chunk is longer than its size");
  *used = 2;
  state_ = State::kSize;
  return Event::kMore;
}

ChunkDecoder::Event ChunkDecoder::TakeTrailer(absl::string_view in, size_t* used) {
  absl::string_view line;
  const Event event = TakeLine(in, &line, used);
  if (event != Event::kData) return event;
  if (line.empty()) return Event::kEnd;
  trailer_bytes_ += *used;
  if (trailer_bytes_ > kMaxTrailer) return Refuse("the trailer is too large");
  const size_t colon = line.find(':');
  if (colon == absl::string_view::npos || colon == 0 || line.find_first_of(" \t") < colon) {
    return Refuse("a line of the trailer is no field");
  }
  return Event::kMore;
}

ChunkDecoder::Event ChunkDecoder::TakeLine(absl::string_view in, absl::string_view* line,
                                           size_t* used) {
  const size_t end = in.substr(0, kMaxLine).find('\n');
  const absl::string_view seen = in.substr(0, std::min(end, kMaxLine));
  // A CR is right before the LF, which may have still to come.
  const absl::string_view text = seen.substr(0, seen.find('\r'));
  if (!std::all_of(text.begin(), text.end(), IsText) || text.size() + 1 < seen.size()) {
    return Refuse("a line between chunks has a control character");
  }
  if (end == absl::string_view::npos) {
    return in.size() < kMaxLine ? Event::kMore : Refuse("a line between chunks is too long");
  }
  if (text.size() == seen.size()) return Refuse("a line between chunks ends with no CR");
  *line = text;
  *used = end + 1;
  return Event::kData;
}

ChunkDecoder::Event ChunkDecoder::Refuse(const char* why) {
  why_ = why;
  return Event::kFault;
}

}  // namespace sluice
