#include "client/cli/text.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/protobuf/util/json_util.h"

namespace sluice {
namespace {

uint8_t ByteAt(absl::string_view text, size_t i) { return static_cast<uint8_t>(text[i]); }

// Bytes of the character that starts at `i`; 0 when it is not UTF-8.
size_t CharacterLength(absl::string_view text, size_t i) {
  const uint8_t lead = ByteAt(text, i);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xC2 && lead < 0xE0   ? 2
                        : lead >= 0xE0 && lead < 0xF0 ? 3
                        : lead >= 0xF0 && lead < 0xF5 ? 4
                                                      : 0;
  if (length == 0 || text.size() - i < length) return 0;
  for (size_t k = 1; k < length; ++k) {
    if ((ByteAt(text, i + k) & 0xC0) != 0x80) return 0;
  }
  const uint8_t second = ByteAt(text, i + 1);
  const bool too_long = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
  const bool surrogate = lead == 0xED && second >= 0xA0;
  const bool too_large = lead == 0xF4 && second >= 0x90;
  return too_long || surrogate || too_large ? 0 : length;
}

bool IsControl(uint8_t byte) { return byte < 0x20 || byte == 0x7F; }

}  // namespace

size_t ValidUtf8Prefix(absl::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const size_t length = CharacterLength(text, i);
    if (length == 0) break;
    i += length;
  }
  return i;
}

std::string ForTerminal(absl::string_view text) {
  constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";
  std::string safe;
  safe.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const uint8_t byte = ByteAt(text, i);
    const bool c1 = byte == 0xC2 && i + 1 < text.size() && ByteAt(text, i + 1) < 0xA0;
    if (c1) ++i;
    if (c1 || (IsControl(byte) && byte != '\n' && byte != '\t')) {
      absl::StrAppend(&safe, kReplacement);
    } else {
      safe += text[i];
    }
  }
  return safe;
}

std::string EscapeControls(absl::string_view text) {
  std::string escaped;
  for (size_t i = 0; i < text.size(); ++i) {
    const uint8_t byte = ByteAt(text, i);
    if (byte == '\n') {
      absl::StrAppend(&escaped, "\\n");
    } else if (byte == '\t') {
      absl::StrAppend(&escaped, "\\t");
    } else if (byte == '\r') {
      absl::StrAppend(&escaped, "\\r");
    } else if (IsControl(byte)) {
      absl::StrAppendFormat(&escaped, "\\x%02x", byte);
    } else {
      escaped += text[i];
    }
  }
  return ForTerminal(escaped);
}

std::string WithCommas(int64_t number) {
  const std::string digits = absl::StrCat(number);
  const size_t first = number < 0 ? 1 : 0;
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > first && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string FormatMilliseconds(absl::Duration duration) {
  const double ms = absl::ToDoubleMilliseconds(duration);
  if (std::abs(ms) < 10) return absl::StrFormat("%.2f ms", ms);
  if (std::abs(ms) < 100) return absl::StrFormat("%.1f ms", ms);
  return absl::StrCat(WithCommas(std::llround(ms)), " ms");
}

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  if (google::protobuf::util::MessageToJsonString(message, &json, options).ok()) return json;
  // The Any does not parse.
  return absl::StrCat("{\"unprintable\":\"", message.GetTypeName(), "\"}");
}

}  // namespace sluice
