#include "server/http/json_writer.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_format.h"
#include "engine/tokenizer/utf8.h"

namespace sluice {
namespace {

// Bytes of the character at the start of `text` that ends a line for some readers of events, which
// must not tear one in two: U+0085, U+2028 or U+2029. 0: it is none of them.
size_t LineEndBytes(absl::string_view text) {
  if (text.size() >= 2 && text[0] == '\xC2' && text[1] == '\x85') return 2;
  if (text.size() < 3 || text[0] != '\xE2' || text[1] != '\x80') return 0;
  return text[2] == '\xA8' || text[2] == '\xA9' ? 3 : 0;
}

void AppendEscaped(char c, std::string* out) {
  switch (c) {
    case '"':
      out->append("\\\"");
      return;
    case '\\':
      out->append("\\\\");
      return;
    case '\n':
      out->append("\\n");
      return;
    case '\r':
      out->append("\\r");
      return;
    case '\t':
      out->append("\\t");
      return;
    default:
      if (static_cast<unsigned char>(c) < 0x20) {
        absl::StrAppendFormat(out, "\\u%04x", static_cast<unsigned>(c));
      } else {
        out->push_back(c);
      }
  }
}

}  // namespace

void AppendJsonString(absl::string_view text, std::string* out) {
  std::string valid;
  if (!IsValidUtf8(text)) text = valid = ToValidUtf8(text);
  out->push_back('"');
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const size_t size = c == '\xC2' || c == '\xE2' ? LineEndBytes(text.substr(i)) : 0;
    if (size == 0) {
      AppendEscaped(c, out);
      continue;
    }
    absl::StrAppendFormat(out, "\\u%04x", static_cast<unsigned>(Utf8CharCode(text.substr(i))));
    i += size - 1;
  }
  out->push_back('"');
}

void AppendJsonFloat(float value, std::string* out) {
  if (!std::isfinite(value)) value = -9999.0f;
  char buffer[32];
  const std::to_chars_result end = std::to_chars(buffer, buffer + sizeof(buffer), value);
  out->append(buffer, end.ptr);
}

}  // namespace sluice
