// UTF-8: validity, characters, and where a text may be cut.
#ifndef SLUICE_ENGINE_TOKENIZER_UTF8_H_
#define SLUICE_ENGINE_TOKENIZER_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

// U+FFFD, which stands for what is not a character.
inline constexpr absl::string_view kReplacementCharacter = "\xEF\xBF\xBD";

enum class Utf8Kind : uint8_t {
  kWhole,       // a character
  kIncomplete,  // the text ends inside a character
  kInvalid,     // no character begins with these bytes
};

// The character that a text begins with.
struct Utf8Prefix {
  Utf8Kind kind;
  uint8_t size;  // bytes: of the character, or the longest beginning of one (at least 1)
};

// `text` must not be empty. No overlong forms, surrogates or codes above U+10FFFF.
Utf8Prefix ReadUtf8Prefix(absl::string_view text);

bool IsValidUtf8(absl::string_view text);

// Bytes at the end of `text` that begin a character and do not complete it: 0 to 3.
size_t IncompleteSuffix(absl::string_view text);

// `text` with U+FFFD for each longest invalid or incomplete sequence.
std::string ToValidUtf8(absl::string_view text);

// Bytes of the character at the start of `text`, which is valid UTF-8 and not empty.
size_t Utf8CharSize(absl::string_view text);

// Code of the character at the start of `text`, which is valid UTF-8 and not empty.
char32_t Utf8CharCode(absl::string_view text);

void AppendUtf8(char32_t code, std::string* out);

// Unicode's White_Space property.
bool IsUnicodeSpace(char32_t code);

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_UTF8_H_
