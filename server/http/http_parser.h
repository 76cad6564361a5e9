// The requests of one connection, one after the other, out of its bytes. No clock, no network.
//
// Refused, as RFC 9112 says or allows (its 5.1, 6.1, 6.3, 11.2): whatever two readers could read
// in two ways. Two Content-Lengths are refused also where they are equal, and so is one beside
// Transfer-Encoding, any in an HTTP/1.0 request, and a space before a colon. "chunked" alone is
// known as a Transfer-Encoding.
#ifndef SLUICE_SERVER_HTTP_HTTP_PARSER_H_
#define SLUICE_SERVER_HTTP_HTTP_PARSER_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "server/http/chunk_decoder.h"
#include "server/http/head_scanner.h"
#include "server/http/http_message.h"

namespace sluice {

class HttpParser {
 public:
  enum class Event : uint8_t { kMore, kHead, kBody, kEnd, kFault };

  explicit HttpParser(size_t max_head_bytes);

  // Takes from the front of `in` what makes one event, and says how many bytes it was. After kMore,
  // call it with the rest of `in` and more bytes behind it. kHead comes first, then kBody any
  // number of times, then kEnd, then the events of the next request. Nothing may follow kFault.
  Event Next(absl::string_view in, size_t* used);

  // From kHead to kEnd.
  const HttpHead& head() const { return head_; }
  // After kBody: a part of `in`, not empty.
  absl::string_view body() const { return body_; }
  // After kFault.
  const HttpFault& fault() const { return fault_; }
  // Some of a request's head has come, and not all of it.
  bool in_head() const { return state_ == State::kHead; }

 private:
  enum class State : uint8_t { kHead, kLength, kChunked, kEnd };

  Event TakeHead(absl::string_view in, size_t* used);
  Event TakeLength(absl::string_view in, size_t* used);
  Event TakeChunked(absl::string_view in, size_t* used);
  Event Refuse(HttpFault fault);

  const size_t max_head_bytes_;
  State state_ = State::kHead;
  HttpHead head_;
  std::optional<HeadScanner> scanner_;
  ChunkDecoder chunks_;
  uint64_t left_ = 0;  // of a body with a length
  absl::string_view body_;
  HttpFault fault_;
};

// `text`: a whole head that a HeadScanner has passed. Status 0, or what is wrong. Pure.
HttpFault ParseHttpHead(absl::string_view text, HttpHead* out);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HTTP_PARSER_H_
