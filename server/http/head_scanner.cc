#include "server/http/head_scanner.h"

namespace sluice {

size_t HeadScanner::Scan(absl::string_view bytes) {
  while (scanned_ < bytes.size() && fault_.status == 0) {
    if (scanned_ == max_bytes_) {
      Refuse(431, "the head of the request is too large");
      return 0;
    }
    if (Take(static_cast<unsigned char>(bytes[scanned_++]))) {
      return fault_.status == 0 ? scanned_ : 0;
    }
  }
  return 0;
}

bool HeadScanner::Take(unsigned char byte) {
  if (after_cr_) {
    after_cr_ = false;
    return byte == '\n' ? EndLine() : Refuse(400, "the head has a CR without its LF");
  }
  if (byte == '\r') {
    after_cr_ = true;
    return false;
  }
  if (byte == '\n') return Refuse(400, "the head has an LF without its CR");
  if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
    return Refuse(400, "the head has a control character");
  }
  if (line_++ == 0 && (byte == ' ' || byte == '\t')) {
    return Refuse(400, "a line of the head begins with a space");
  }
  return false;
}

bool HeadScanner::EndLine() {
  if (line_ > 0) {
    ++lines_;
    line_ = 0;
    return false;
  }
  if (lines_ > 0) return true;
  if (skipped_ > 0) return Refuse(400, "there is no request line");
  skipped_ = scanned_;
  return false;
}

bool HeadScanner::Refuse(int status, const char* why) {
  fault_ = {status, why};
  return true;
}

}  // namespace sluice
