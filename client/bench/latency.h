// Latencies of a benchmark and their percentiles.
#ifndef SLUICE_CLIENT_BENCH_LATENCY_H_
#define SLUICE_CLIENT_BENCH_LATENCY_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"

namespace sluice {

struct LatencySummary {
  int64_t count = 0;  // sum of the weights; all zero when it is 0
  absl::Duration mean;
  absl::Duration p50;
  absl::Duration p90;
  absl::Duration p95;
  absl::Duration p99;
  absl::Duration max;
};

// Every sample is kept, so percentiles are exact (nearest rank). One thread.
class LatencySamples {
 public:
  // A latency that `weight` tokens or requests had.
  void Add(absl::Duration latency, int32_t weight = 1) { samples_.push_back({latency, weight}); }
  bool empty() const { return samples_.empty(); }
  LatencySummary Summarize() const;
  // For each of `percents`, which ascend in [0, 100], the smallest latency that at least that share
  // of the weight does not exceed. Empty when there are no samples.
  std::vector<absl::Duration> Percentiles(absl::Span<const int> percents) const;

 private:
  struct Sample {
    absl::Duration latency;
    int32_t weight;
  };
  std::vector<Sample> Sorted() const;

  std::vector<Sample> samples_;
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_LATENCY_H_
