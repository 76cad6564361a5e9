// A body in chunks (RFC 9112 7.1), strictly: the parser of Boost.Beast tells of a bad size only
// once the end of the trailer has come.
#ifndef SLUICE_SERVER_HTTP_CHUNK_DECODER_H_
#define SLUICE_SERVER_HTTP_CHUNK_DECODER_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace sluice {

class ChunkDecoder {
 public:
  enum class Event : uint8_t { kMore, kData, kEnd, kFault };

  // Takes from the front of `in` what makes one event, and says how many bytes it was. kMore takes
  // none, or a piece of framing: the rest is to come again with more behind it. Nothing may follow
  // kEnd and kFault.
  Event Next(absl::string_view in, size_t* used);

  // After kData: a part of `in`, not empty.
  absl::string_view data() const { return data_; }
  // After kFault.
  const char* why() const { return why_; }

 private:
  enum class State : uint8_t { kSize, kData, kDataEnd, kTrailer };

  Event TakeSize(absl::string_view in, size_t* used);
  Event TakeData(absl::string_view in, size_t* used);
  Event TakeDataEnd(absl::string_view in, size_t* used);
  Event TakeTrailer(absl::string_view in, size_t* used);
  // A line that ends with CRLF; its bytes without that.
  Event TakeLine(absl::string_view in, absl::string_view* line, size_t* used);
  Event Refuse(const char* why);

  State state_ = State::kSize;
  uint64_t left_ = 0;      // of this chunk
  uint64_t overhead_ = 0;  // bytes of framing beyond what a sensible sender needs
  size_t trailer_bytes_ = 0;
  absl::string_view data_;
  const char* why_ = "";
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_CHUNK_DECODER_H_
