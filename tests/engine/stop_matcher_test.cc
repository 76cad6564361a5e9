#include "engine/stop_matcher.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace sluice {
namespace {

// Feeds `text` in pieces of `piece` bytes; returns what was released, and the match in *found.
std::string Feed(StopMatcher* matcher, const std::string& text, size_t piece,
                 std::optional<size_t>* found) {
  std::string released;
  for (size_t i = 0; i < text.size() && !found->has_value(); i += piece) {
    *found = matcher->Append(absl::string_view(text).substr(i, piece), &released);
  }
  return released;
}

TEST(StopMatcherTest, ReleasesTextUpToTheStopString) {
  StopMatcher matcher({"END"});
  std::optional<size_t> found;
  EXPECT_EQ(Feed(&matcher, "an EN and an END of it", 1, &found), "an EN and an ");
  EXPECT_EQ(found, 0u);
}

TEST(StopMatcherTest, SaysHowMuchCameBehindTheMatch) {
  StopMatcher matcher({"END"});
  std::string released;
  EXPECT_FALSE(matcher.Append("an E", &released).has_value());
  EXPECT_TRUE(matcher.Append("ND of", &released).has_value());
  EXPECT_EQ(released, "an ");
  EXPECT_EQ(matcher.dropped(), 3u);
}

TEST(StopMatcherTest, HoldsBackOnlyWhatMayBeAStopString) {
  StopMatcher matcher({"abac"});
  std::string released;
  EXPECT_FALSE(matcher.Append("xaba", &released).has_value());
  EXPECT_EQ(released, "x");
  EXPECT_FALSE(matcher.Append("b", &released).has_value());  // "abab" ends with "ab" of "abac"
  EXPECT_EQ(released, "xab");
  matcher.Flush(&released);
  EXPECT_EQ(released, "xabab");
}

TEST(StopMatcherTest, OfSeveralThatEndTogetherTheLongestCounts) {
  StopMatcher matcher({"lo", "hello", "llo"});
  std::optional<size_t> found;
  EXPECT_EQ(Feed(&matcher, "say hello", 2, &found), "say ");
  EXPECT_EQ(found, 1u);
}

TEST(StopMatcherTest, AgreesWithSearchingTheWholeText) {
  std::mt19937 rng(7);
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops(1 + rng() % 3);
    for (std::string& stop : stops) {
      for (size_t i = 1 + rng() % 4; i > 0; --i) stop.push_back(static_cast<char>('a' + rng() % 2));
    }
    std::string text;
    for (int i = 0; i < 24; ++i) text.push_back(static_cast<char>('a' + rng() % 3));
    size_t best_end = std::string::npos;
    size_t best_length = 0;
    for (const std::string& stop : stops) {
      const size_t at = text.find(stop);
      if (at == std::string::npos) continue;
      const size_t end = at + stop.size();
      if (end < best_end || (end == best_end && stop.size() > best_length)) {
        best_end = end;
        best_length = stop.size();
      }
    }
    StopMatcher matcher(stops);
    std::optional<size_t> found;
    std::string released = Feed(&matcher, text, 1 + rng() % 5, &found);
    ASSERT_EQ(found.has_value(), best_end != std::string::npos) << text;
    if (found) {
      EXPECT_EQ(released, text.substr(0, best_end - best_length)) << text;
      EXPECT_EQ(stops[*found].size(), best_length);
    } else {
      matcher.Flush(&released);
      EXPECT_EQ(released, text);
    }
  }
}

TEST(StopMatcherTest, ACopyGoesItsOwnWay) {
  StopMatcher one({"stop"});
  std::string a, b;
  one.Append("st", &a);
  StopMatcher two = one;
  EXPECT_TRUE(one.Append("op", &a).has_value());
  EXPECT_FALSE(two.Append("ar", &b).has_value());
  EXPECT_EQ(b, "star");
}

}  // namespace
}  // namespace sluice
