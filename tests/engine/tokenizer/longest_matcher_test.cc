#include "engine/tokenizer/longest_matcher.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace sluice {
namespace {

using Found = std::vector<std::tuple<size_t, size_t, int32_t>>;

Found FindAll(const LongestMatcher& matcher, absl::string_view text) {
  std::vector<LongestMatcher::Match> matches;
  matcher.FindAll(text, &matches);
  Found found;
  for (const auto& match : matches) found.emplace_back(match.begin, match.end, match.pattern);
  return found;
}

Found FindSlowly(const std::vector<std::string>& patterns, const std::string& text) {
  Found found;
  for (size_t at = 0; at < text.size();) {
    int32_t best = -1;
    for (size_t i = 0; i < patterns.size(); ++i) {
      if (patterns[i].empty() || text.compare(at, patterns[i].size(), patterns[i]) != 0) continue;
      if (best < 0 || patterns[i].size() > patterns[best].size()) best = static_cast<int32_t>(i);
    }
    if (best < 0) {
      ++at;
      continue;
    }
    found.emplace_back(at, at + patterns[best].size(), best);
    at += patterns[best].size();
  }
  return found;
}

TEST(LongestMatcher, NothingToFind) {
  EXPECT_EQ(FindAll(LongestMatcher(), "abc"), Found());
  EXPECT_EQ(FindAll(LongestMatcher(std::vector<std::string>{""}), "abc"), Found());
  EXPECT_EQ(FindAll(LongestMatcher({"x"}), ""), Found());
}

TEST(LongestMatcher, LeftmostThenLongest) {
  const LongestMatcher matcher({"ab", "abcd", "bcde", "e", "ab"});
  EXPECT_EQ(FindAll(matcher, "abcde"), (Found{{0, 4, 1}, {4, 5, 3}}));
  EXPECT_EQ(FindAll(matcher, "abcxab"), (Found{{0, 2, 0}, {4, 6, 0}}));
}

TEST(LongestMatcher, RandomPatterns) {
  std::mt19937 random(6);
  const auto word = [&](size_t max) {
    std::string text(random() % (max + 1), ' ');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> patterns;
    for (size_t i = random() % 8; i > 0; --i) patterns.push_back(word(6));
    const std::string text = word(40);
    EXPECT_EQ(FindAll(LongestMatcher(patterns), text), FindSlowly(patterns, text)) << text;
  }
}

}  // namespace
}  // namespace sluice
