#include "engine/tokenizer/byte_level.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "engine/tokenizer/utf8.h"

namespace sluice {
namespace {

TEST(ByteLevel, AlphabetThereAndBack) {
  std::set<char32_t> characters;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character = ByteLevelCharacter(static_cast<uint8_t>(byte));
    EXPECT_TRUE(characters.insert(character).second);
    std::string text;
    AppendUtf8(character, &text);
    EXPECT_EQ(ByteLevelBytes(text), std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(ByteLevelBytes("Ġthe"), " the");
  EXPECT_EQ(ByteLevelBytes("Ċ"), "\n");
  EXPECT_EQ(ByteLevelBytes("Ã©"), "é");
  EXPECT_EQ(ByteLevelBytes("a b"), std::nullopt);
  EXPECT_EQ(ByteLevelBytes("日"), std::nullopt);
}

TEST(ByteLevel, ByteOfPiece) {
  EXPECT_EQ(ByteOfPiece("<0x0A>"), 10);
  EXPECT_EQ(ByteOfPiece("<0xff>"), 255);
  for (const char* piece : {"", "<0x0>", "<0x0G>", "<0x0A", "<0x+A>", "[0x0A]", "<0x0A>>"}) {
    EXPECT_EQ(ByteOfPiece(piece), std::nullopt) << piece;
  }
}

}  // namespace
}  // namespace sluice
