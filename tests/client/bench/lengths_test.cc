#include "client/bench/lengths.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace sluice {
namespace {

constexpr int kDraws = 10000;

std::vector<int64_t> DrawMany(const Lengths& lengths) {
  Random random(3);
  std::vector<int64_t> draws;
  for (int i = 0; i < kDraws; ++i) draws.push_back(lengths.Draw(&random));
  std::sort(draws.begin(), draws.end());
  return draws;
}

TEST(LengthsTest, FixedIsThat) {
  const absl::StatusOr<Lengths> lengths = Lengths::Parse("128");
  ASSERT_TRUE(lengths.ok());
  EXPECT_EQ(DrawMany(*lengths).front(), 128);
  EXPECT_EQ(DrawMany(*lengths).back(), 128);
  EXPECT_EQ(lengths->Describe("tokens"), "128 tokens");
}

TEST(LengthsTest, UniformReachesBothEndsEqually) {
  const absl::StatusOr<Lengths> lengths = Lengths::Parse("uniform:3:7");
  ASSERT_TRUE(lengths.ok());
  const std::vector<int64_t> draws = DrawMany(*lengths);
  for (int64_t length = 3; length <= 7; ++length) {
    EXPECT_NEAR(static_cast<double>(std::count(draws.begin(), draws.end(), length)), kDraws / 5,
                4 * std::sqrt(kDraws * 0.2 * 0.8))
        << length;
  }
  EXPECT_EQ(draws.front(), 3);
  EXPECT_EQ(draws.back(), 7);
  EXPECT_EQ(lengths->Describe("tokens"), "3 to 7 tokens");
}

TEST(LengthsTest, LognormalHasItsQuartilesAndItsMaximum) {
  const absl::StatusOr<Lengths> lengths = Lengths::Parse("lognormal:200:1.2:2048");
  ASSERT_TRUE(lengths.ok());
  const std::vector<int64_t> draws = DrawMany(*lengths);
  // Quartiles of the normal distribution lie 0.6745 deviations from its mean.
  EXPECT_NEAR(std::log(static_cast<double>(draws[kDraws / 2]) / 200), 0, 0.06);
  EXPECT_NEAR(std::log(static_cast<double>(draws[kDraws / 4]) / 200), -0.6745 * 1.2, 0.07);
  EXPECT_NEAR(std::log(static_cast<double>(draws[kDraws * 3 / 4]) / 200), 0.6745 * 1.2, 0.07);
  EXPECT_GE(draws.front(), 1);
  EXPECT_EQ(draws.back(), 2048);
}

TEST(LengthsTest, RefusesWhatItDoesNotKnow) {
  for (const char* text :
       {"", "-1", "x", "1048577", "uniform:7:3", "uniform:1", "lognormal:0:1:10",
        "lognormal:10:-1:20", "lognormal:10:nan:20", "lognormal:20:1:10", "normal:1:2:3"}) {
    EXPECT_FALSE(Lengths::Parse(text).ok()) << text;
  }
}

}  // namespace
}  // namespace sluice
