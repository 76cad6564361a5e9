#include "client/bench/latency.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(LatencyTest, EmptyIsZero) {
  const LatencySummary summary = LatencySamples().Summarize();
  EXPECT_EQ(summary.count, 0);
  EXPECT_EQ(summary.p99, absl::ZeroDuration());
}

TEST(LatencyTest, PercentilesAreNearestRank) {
  LatencySamples samples;
  for (int i = 100; i >= 1; --i) samples.Add(absl::Milliseconds(i));
  const LatencySummary summary = samples.Summarize();
  EXPECT_EQ(summary.count, 100);
  EXPECT_EQ(summary.p50, absl::Milliseconds(50));
  EXPECT_EQ(summary.p90, absl::Milliseconds(90));
  EXPECT_EQ(summary.p95, absl::Milliseconds(95));
  EXPECT_EQ(summary.p99, absl::Milliseconds(99));
  EXPECT_EQ(summary.max, absl::Milliseconds(100));
  EXPECT_EQ(summary.mean, absl::Microseconds(50500));
}

TEST(LatencyTest, OneSampleIsEveryPercentile) {
  LatencySamples samples;
  samples.Add(absl::Milliseconds(7));
  const LatencySummary summary = samples.Summarize();
  EXPECT_EQ(summary.p50, absl::Milliseconds(7));
  EXPECT_EQ(summary.max, absl::Milliseconds(7));
}

TEST(LatencyTest, WeightsCountAsSoManySamples) {
  LatencySamples weighted;
  weighted.Add(absl::Milliseconds(1), 9);
  weighted.Add(absl::Milliseconds(5), 1);
  LatencySamples plain;
  for (int i = 0; i < 9; ++i) plain.Add(absl::Milliseconds(1));
  plain.Add(absl::Milliseconds(5));
  const LatencySummary a = weighted.Summarize();
  const LatencySummary b = plain.Summarize();
  EXPECT_EQ(a.count, b.count);
  EXPECT_EQ(a.mean, b.mean);
  EXPECT_EQ(a.p50, b.p50);
  EXPECT_EQ(a.p90, b.p90);
  EXPECT_EQ(a.p99, b.p99);
  EXPECT_EQ(a.p99, absl::Milliseconds(5));
}

TEST(LatencyTest, PercentilesAscend) {
  LatencySamples samples;
  for (int i = 1; i <= 20; ++i) samples.Add(absl::Milliseconds(i));
  EXPECT_THAT(samples.Percentiles({0, 5, 6, 95, 96, 100}),
              ::testing::ElementsAre(absl::Milliseconds(1), absl::Milliseconds(1),
                                     absl::Milliseconds(2), absl::Milliseconds(19),
                                     absl::Milliseconds(20), absl::Milliseconds(20)));
  EXPECT_TRUE(LatencySamples().Percentiles({50}).empty());
}

}  // namespace
}  // namespace sluice
