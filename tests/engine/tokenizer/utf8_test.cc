#include "engine/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace sluice {
namespace {

using namespace std::string_literals;

TEST(Utf8, Valid) {
  for (const std::string& text :
       {""s, "a\0b"s, "\x7F"s, "é"s, "日本"s, "🙂"s, "\xED\x9F\xBF"s, "\xEE\x80\x80"s,
        "\xF4\x8F\xBF\xBF"s, "\xC2\x80"s, "\xE0\xA0\x80"s, "\xF0\x90\x80\x80"s}) {
    EXPECT_TRUE(IsValidUtf8(text)) << text;
    EXPECT_EQ(ToValidUtf8(text), text);
  }
}

TEST(Utf8, InvalidBecomesOneReplacementForEachLongestBeginning) {
  const std::string r(kReplacementCharacter);
  const std::pair<std::string, std::string> cases[] = {
      {"\x80", r},                          // a tail alone
      {"\xC0\xAF", r + r},                  // overlong
      {"\xE0\x9F\xBF", r + r + r},          // overlong
      {"\xED\xA0\x80", r + r + r},          // a surrogate
      {"\xF4\x90\x80\x80", r + r + r + r},  // above U+10FFFF
      {"\xF8\x88\x80\x80\x80", r + r + r + r + r},
      {"a\xE2\x82", "a" + r},  // incomplete
      {"\xF0\x9F\x99z", r + "z"},
      {"\xE2\x82\xE2\x82\xAC", r + "€"},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_FALSE(IsValidUtf8(text)) << text;
    EXPECT_EQ(ToValidUtf8(text), expected);
  }
}

TEST(Utf8, IncompleteSuffix) {
  EXPECT_EQ(IncompleteSuffix(""), 0u);
  EXPECT_EQ(IncompleteSuffix("aé"), 0u);
  EXPECT_EQ(IncompleteSuffix("a\xC3"), 1u);
  EXPECT_EQ(IncompleteSuffix("a\xE2\x82"), 2u);
  EXPECT_EQ(IncompleteSuffix("\xF0\x9F\x99"), 3u);
  EXPECT_EQ(IncompleteSuffix("\x80\x80"), 0u);  // no beginning of anything
  EXPECT_EQ(IncompleteSuffix("\xE0\x80"), 0u);  // can never become a character
  EXPECT_EQ(IncompleteSuffix("\xF0\x9F\xE2\x82"), 2u);
}

TEST(Utf8, EveryCodeThereAndBack) {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    AppendUtf8(code, &text);
    ASSERT_TRUE(IsValidUtf8(text)) << static_cast<uint32_t>(code);
    ASSERT_EQ(Utf8CharSize(text), text.size());
    ASSERT_EQ(Utf8CharCode(text), code);
    for (size_t cut = 1; cut < text.size(); ++cut)
      ASSERT_EQ(IncompleteSuffix(text.substr(0, cut)), cut);
  }
}

}  // namespace
}  // namespace sluice
