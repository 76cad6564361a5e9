// GPT-2's alphabet: a printable character for each byte, in which byte-level vocabularies are
// written.
#ifndef SLUICE_ENGINE_TOKENIZER_BYTE_LEVEL_H_
#define SLUICE_ENGINE_TOKENIZER_BYTE_LEVEL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

// The character of a byte.
char32_t ByteLevelCharacter(uint8_t byte);

// `bytes` in that alphabet.
std::string ByteLevelText(absl::string_view bytes);

// The bytes that `piece` (valid UTF-8) is written for; nothing if a character is not of the
// alphabet.
std::optional<std::string> ByteLevelBytes(absl::string_view piece);

// The byte of a piece like "<0x0A>".
std::optional<uint8_t> ByteOfPiece(absl::string_view piece);

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_BYTE_LEVEL_H_
