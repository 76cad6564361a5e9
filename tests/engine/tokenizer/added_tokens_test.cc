#include "engine/tokenizer/added_tokens.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/bpe.h"

namespace sluice {
namespace {

using Parts = std::vector<std::pair<std::string, int32_t>>;

Parts Split(const AddedTokens& tokens, absl::string_view text) {
  std::vector<AddedSegment> segments;
  tokens.Split(text, &segments);
  Parts parts;
  for (const AddedSegment& segment : segments) {
    parts.emplace_back(segment.id == kNoId ? std::string(segment.text) : "", segment.id);
  }
  return parts;
}

TEST(AddedTokens, BetweenText) {
  const AddedTokens tokens({{"<s>", 1, false, false, false}, {"<s>x", 2, false, false, false}});
  EXPECT_EQ(Split(tokens, ""), Parts());
  EXPECT_EQ(Split(tokens, "abc"), (Parts{{"abc", -1}}));
  EXPECT_EQ(Split(tokens, "a<s><s>xb"), (Parts{{"a", -1}, {"", 1}, {"", 2}, {"b", -1}}));
}

TEST(AddedTokens, StripsWhiteSpace) {
  const AddedTokens tokens({{"<l>", 1, false, true, false}, {"<r>", 2, false, false, true}});
  EXPECT_EQ(Split(tokens, "a \t<l> b"), (Parts{{"a", -1}, {"", 1}, {" b", -1}}));
  EXPECT_EQ(Split(tokens, "a <r>\u3000\n b"), (Parts{{"a ", -1}, {"", 2}, {"b", -1}}));
  EXPECT_EQ(Split(tokens, "<r>  <l>"), (Parts{{"", 2}, {"", 1}}));
}

TEST(AddedTokens, SingleWord) {
  const AddedTokens tokens({{"ab", 1, true, false, false}});
  EXPECT_EQ(Split(tokens, "ab-ab"), (Parts{{"", 1}, {"-", -1}, {"", 1}}));
  EXPECT_EQ(Split(tokens, "xab abé _ab"), (Parts{{"xab abé _ab", -1}}));
}

TEST(AddedTokens, WhiteSpaceTokensInsideARun) {
  const AddedTokens tokens({{" ", 1, false, true, true}});
  EXPECT_EQ(Split(tokens, std::string(100'000, ' ')).size(), 100'000u);
}

}  // namespace
}  // namespace sluice
