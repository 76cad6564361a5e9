#include "client/bench/arrivals.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace sluice {
namespace {

constexpr int kGaps = 20000;

std::vector<double> GapsMs(const ArrivalOptions& options) {
  Arrivals arrivals(options);
  std::vector<double> gaps;
  for (int i = 0; i < kGaps; ++i) gaps.push_back(absl::ToDoubleMilliseconds(arrivals.NextGap()));
  return gaps;
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// Standard deviation over mean.
double Variation(const std::vector<double>& values) {
  const double mean = Mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size())) / mean;
}

double ShareAbove(const std::vector<double>& values, double bound) {
  double count = 0;
  for (const double value : values) count += value > bound ? 1 : 0;
  return count / static_cast<double>(values.size());
}

TEST(ArrivalsTest, PoissonGapsAreExponential) {
  const std::vector<double> gaps = GapsMs({.rate = 50, .seed = 7});
  EXPECT_NEAR(Mean(gaps), 20, 0.6);  // 4 standard errors, here and below
  EXPECT_NEAR(Variation(gaps), 1, 0.03);
  for (const double times : {0.1, 0.5, 1.0, 2.0, 4.0}) {
    EXPECT_NEAR(ShareAbove(gaps, 20 * times), std::exp(-times), 0.015) << times;
  }
}

TEST(ArrivalsTest, SameSeedSameGaps) {
  EXPECT_EQ(GapsMs({.rate = 50, .seed = 7}), GapsMs({.rate = 50, .seed = 7}));
  EXPECT_NE(GapsMs({.rate = 50, .seed = 7}), GapsMs({.rate = 50, .seed = 8}));
}

TEST(ArrivalsTest, UniformGapsAreEqual) {
  for (const double gap : GapsMs({.rate = 50, .process = ArrivalProcess::kUniform})) {
    ASSERT_DOUBLE_EQ(gap, 20);
  }
}

TEST(ArrivalsTest, BurstinessKeepsTheRateAndSetsTheVariation) {
  for (const double burstiness : {0.25, 0.5, 2.0, 16.0}) {
    const std::vector<double> gaps = GapsMs({.rate = 50, .burstiness = burstiness, .seed = 7});
    const double variation = 1 / std::sqrt(burstiness);
    EXPECT_NEAR(Mean(gaps), 20, 0.6 * variation) << burstiness;
    EXPECT_NEAR(Variation(gaps), variation, 0.06 * variation) << burstiness;
    for (const double gap : gaps) ASSERT_GE(gap, 0);
  }
}

}  // namespace
}  // namespace sluice
