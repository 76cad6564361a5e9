#include "engine/step_cost.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(FittedLineTest, FindsTheLineThroughNoise) {
  std::mt19937_64 rng(1);
  std::normal_distribution<double> noise(0, 0.1);
  FittedLine line(1000);
  for (int i = 0; i < 10000; ++i) {
    const double x = 1 + static_cast<double>(rng() % 16);
    line.Add(x, 3 + 0.5 * x + noise(rng));
  }
  EXPECT_NEAR(line.At(1), 3.5, 0.02);
  EXPECT_NEAR(line.At(16), 11, 0.02);
  EXPECT_NEAR(line.Reach(7), 8, 0.1);
  EXPECT_LT(line.Reach(2.9), 0);
}

TEST(FittedLineTest, OfOneXIsSharpThereAndCautiousBeyond) {
  FittedLine line(100);
  EXPECT_TRUE(line.empty());
  EXPECT_LT(line.Reach(1e9), 0) << "nothing was seen";
  for (int i = 0; i < 1000; ++i) line.Add(2, 1.0);
  EXPECT_DOUBLE_EQ(line.At(2), 1.0);
  EXPECT_DOUBLE_EQ(line.At(4), 2.0);
  EXPECT_DOUBLE_EQ(line.Reach(3.0), 6.0);
}

TEST(FittedLineTest, FollowsAChange) {
  FittedLine line(100);
  for (int i = 0; i < 1000; ++i) line.Add(1 + i % 8, 1.0);
  EXPECT_TRUE(std::isinf(line.Reach(1.01))) << "flat";
  for (int i = 0; i < 1000; ++i) line.Add(1 + i % 8, 1.0 + i % 8);
  EXPECT_NEAR(line.At(4), 4, 0.01);
}

TEST(FittedLineTest, NeverFalls) {
  FittedLine line(100);
  for (int i = 0; i < 100; ++i) line.Add(1 + i % 8, 10.0 - i % 8);
  EXPECT_GE(line.At(100), line.At(1));
}

TEST(StepCostTest, PromptsComeOnTopOfRows) {
  StepCost cost;
  EXPECT_EQ(cost.RowsIn(absl::Hours(1)), 0);
  for (int rows = 1; rows <= 32; ++rows) {
    cost.Observe(rows, 0, absl::Microseconds(1000 + 100 * rows));
  }
  EXPECT_EQ(cost.PromptTokensIn(absl::Hours(1), 1), 0);
  for (int tokens = 16; tokens <= 512; tokens += 16) {
    cost.Observe(4, tokens, absl::Microseconds(1400 + 500 + 10 * tokens));
  }
  EXPECT_EQ(cost.RowsIn(absl::Microseconds(2050)), 10);
  EXPECT_NEAR(absl::ToDoubleMicroseconds(cost.OfRows(20)), 3000, 1);
  EXPECT_NEAR(static_cast<double>(cost.PromptTokensIn(absl::Microseconds(1200 + 500 + 1005), 2)),
              100, 1);
  EXPECT_EQ(cost.PromptTokensIn(absl::Microseconds(1300), 2), 0);
}

TEST(StepCostTest, StepsWithoutDecodeRowsSayNothing) {
  StepCost cost;
  cost.Observe(0, 100, absl::Milliseconds(1));
  EXPECT_EQ(cost.RowsIn(absl::Hours(1)), 0);
  EXPECT_EQ(cost.PromptTokensIn(absl::Hours(1), 0), 0);
}

}  // namespace
}  // namespace sluice
