#include "server/http/json_writer.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_format.h"
#include "engine/tokenizer/utf8.h"

namespace sluice {
namespace {

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
  for (const char c : text) AppendEscaped(c, out);
  out->push_back('"');
}

void AppendJsonFloat(float value, std::string* out) {
  if (!std::isfinite(value)) value = -9999.0f;
  char buffer[32];
  const std::to_chars_result end = std::to_chars(buffer, buffer + sizeof(buffer), value);
  out->append(buffer, end.ptr);
}

}  // namespace sluice
