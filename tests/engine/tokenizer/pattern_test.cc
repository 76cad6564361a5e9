#include "engine/tokenizer/pattern.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sluice {
namespace {

constexpr char kLlama3[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                           R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<std::string> Found(const Pattern& pattern, absl::string_view text) {
  std::vector<TextRange> ranges;
  pattern.FindAll(text, &ranges);
  std::vector<std::string> found;
  for (const TextRange& range : ranges)
    found.emplace_back(text.substr(range.begin, range.end - range.begin));
  return found;
}

using Strings = std::vector<std::string>;

TEST(Pattern, Gpt2) {
  EXPECT_EQ(Found(Pattern::Gpt2(), "I'm 12,  x\n\n y don'T"),
            (Strings{"I", "'m", " 12", ",", " ", " x", "\n\n", " y", " don", "'", "T"}));
  // No space since Unicode 6.3, whatever PCRE2's \s says.
  EXPECT_EQ(Found(Pattern::Gpt2(), "a\u180e b"), (Strings{"a", "\u180e", " b"}));
}

TEST(Pattern, Llama3) {
  const Pattern pattern = *Pattern::Regex(kLlama3);
  EXPECT_EQ(Found(pattern, "I'M 12345,\n\n  x  \r\n y"),
            (Strings{"I", "'M", " ", "123", "45", ",\n\n", " ", " x", "  \r\n", " y"}));
}

TEST(Pattern, Literal) {
  EXPECT_EQ(Found(Pattern::Literal("aa"), "aaaba"), (Strings{"aa"}));
  EXPECT_EQ(Found(Pattern::Literal("."), "a.b"), (Strings{"."}));
  EXPECT_EQ(Found(Pattern::Literal(""), "ab"), Strings());
}

TEST(Pattern, EmptyMatches) {
  EXPECT_EQ(Found(*Pattern::Regex("x*"), "axé"), (Strings{"", "x", ""}));
}

TEST(Pattern, GivesUpOnTooExpensive) {
  const Pattern pattern = *Pattern::Regex("y|(?:x+x+)+z");
  EXPECT_EQ(Found(pattern, "y" + std::string(200, 'x')), (Strings{"y"}));
}

TEST(Pattern, LongRunsNeedNoStack) {
  // A group that repeats over the whole text outgrows the compiled matcher's stack.
  const Pattern pattern = *Pattern::Regex("(?:(a)|b)+");
  EXPECT_EQ(Found(pattern, std::string(100'000, 'a')).size(), 1u);
}

}  // namespace
}  // namespace sluice
