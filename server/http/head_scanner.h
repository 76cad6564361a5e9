// Finds where the head of a request ends, and refuses bytes that may not be there.
//
// A head that two readers can read in two ways lets one client's request pass for another's behind
// a proxy (RFC 9112 11.2), and parsers forgive some of that. So the bytes are looked at first, as
// they come: lines end with CRLF, none is folded, and no control character is in them.
#ifndef SLUICE_SERVER_HTTP_HEAD_SCANNER_H_
#define SLUICE_SERVER_HTTP_HEAD_SCANNER_H_

#include <cstddef>

#include "absl/strings/string_view.h"
#include "server/http/http_message.h"

namespace sluice {

class HeadScanner {
 public:
  explicit HeadScanner(size_t max_bytes) : max_bytes_(max_bytes) {}

  // Scans further. `bytes` begins with the request, and extends what it was in the last call.
  // Returns the size of the whole head, with the empty line that ends it; 0 if it is not there yet,
  // or fault() says what is wrong.
  size_t Scan(absl::string_view bytes);

  // Empty lines before the request line, which are no part of it: at most one, two bytes.
  size_t skipped() const { return skipped_; }
  // Status 0 where nothing is wrong.
  const HttpFault& fault() const { return fault_; }

 private:
  // Takes the next byte. True: it is the head's last, or is at fault.
  bool Take(unsigned char byte);
  bool EndLine();
  bool Refuse(int status, const char* why);

  const size_t max_bytes_;
  size_t scanned_ = 0;
  size_t skipped_ = 0;
  size_t line_ = 0;  // bytes of this line
  size_t lines_ = 0;
  bool after_cr_ = false;
  HttpFault fault_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HEAD_SCANNER_H_
