// HTTP/1.1 messages as the server's parts hand them to each other.
#ifndef SLUICE_SERVER_HTTP_HTTP_MESSAGE_H_
#define SLUICE_SERVER_HTTP_HTTP_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace sluice {

// The head of a request whose framing is beyond doubt.
struct HttpHead {
  std::string method{};
  std::string target{};  // as it was sent
  std::string path{};    // of the target, without the query, percent-decoded
  std::vector<std::pair<std::string, std::string>> fields{};
  bool http_1_0 = false;
  bool keep_alive = false;
  bool chunked = false;
  bool expects_continue = false;  // the client sends its body once it is told to
  uint64_t content_length = 0;    // 0 where the body is chunked

  bool has_body() const { return chunked || content_length > 0; }
  // Value of the first field of that name, in any case; empty where there is none.
  absl::string_view Find(absl::string_view name) const;
  // Values of all of them, in order.
  std::vector<absl::string_view> FindAll(absl::string_view name) const;
};

// A fault in the bytes of a request, which the server answers itself.
struct HttpFault {
  int status = 0;
  std::string why{};
};

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body{};
  std::vector<std::pair<std::string, std::string>> headers{};
};

// The way in which the bytes after a reply's head end.
enum class HttpBodyFraming : uint8_t { kLength, kChunked, kUntilClose };

// The reply's head, without its body. `length`: for kLength. `date`: as HttpDate.
std::string SerializeHead(const HttpReply& reply, HttpBodyFraming framing, size_t length,
                          bool keep_alive, absl::string_view date);
// `bytes`, which are not empty, as one chunk.
void AppendChunk(absl::string_view bytes, std::string* out);
inline constexpr char kLastChunk[] = "0\r\n\r\n";

// RFC 9110 5.6.7: "Sun, 06 Nov 1994 08:49:37 GMT".
std::string HttpDate(int64_t unix_seconds);

// nullopt where a '%' is not followed by two hexadecimal digits.
std::optional<std::string> PercentDecode(absl::string_view text);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HTTP_MESSAGE_H_
