#include "engine/tokenizer/byte_level.h"

#include <array>

#include "absl/strings/ascii.h"
#include "engine/tokenizer/utf8.h"

namespace sluice {
namespace {

// The bytes that are not their own character come after U+00FF, in order.
constexpr int kAlphabetEnd = 0x100 + 68;

constexpr bool IsOwnCharacter(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> character = {};
  std::array<int16_t, kAlphabetEnd> byte = {};  // -1: not of the alphabet

  constexpr Alphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      character[b] = IsOwnCharacter(b) ? static_cast<char32_t>(b) : next++;
      byte[character[b]] = static_cast<int16_t>(b);
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

char32_t ByteLevelCharacter(uint8_t byte) { return kAlphabet.character[byte]; }

std::string ByteLevelText(absl::string_view bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char byte : bytes) AppendUtf8(ByteLevelCharacter(static_cast<uint8_t>(byte)), &text);
  return text;
}

std::optional<std::string> ByteLevelBytes(absl::string_view piece) {
  std::string bytes;
  while (!piece.empty()) {
    const char32_t code = Utf8CharCode(piece);
    if (code >= kAlphabetEnd || kAlphabet.byte[code] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.byte[code]));
    piece.remove_prefix(Utf8CharSize(piece));
  }
  return bytes;
}

std::optional<uint8_t> ByteOfPiece(absl::string_view piece) {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return std::nullopt;
  int byte = 0;
  for (const char digit : piece.substr(3, 2)) {
    if (!absl::ascii_isxdigit(digit)) return std::nullopt;
    const char lower = absl::ascii_tolower(digit);
    byte = byte * 16 + (absl::ascii_isdigit(digit) ? digit - '0' : lower - 'a' + 10);
  }
  return static_cast<uint8_t>(byte);
}

}  // namespace sluice
