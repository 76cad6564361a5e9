#include "client/bench/latency.h"

#include <algorithm>

namespace sluice {

std::vector<LatencySamples::Sample> LatencySamples::Sorted() const {
  std::vector<Sample> sorted = samples_;
  std::sort(sorted.begin(), sorted.end(),
            [](const Sample& a, const Sample& b) { return a.latency < b.latency; });
  return sorted;
}

std::vector<absl::Duration> LatencySamples::Percentiles(absl::Span<const int> percents) const {
  std::vector<absl::Duration> values;
  if (samples_.empty()) return values;
  const std::vector<Sample> sorted = Sorted();
  int64_t count = 0;
  for (const Sample& sample : sorted) count += sample.weight;
  size_t i = 0;
  int64_t weight_so_far = sorted[0].weight;
  for (const int percent : percents) {
    while (weight_so_far * 100 < count * percent) weight_so_far += sorted[++i].weight;
    values.push_back(sorted[i].latency);
  }
  return values;
}

LatencySummary LatencySamples::Summarize() const {
  LatencySummary summary;
  if (samples_.empty()) return summary;
  absl::Duration total;
  for (const Sample& sample : samples_) {
    summary.count += sample.weight;
    total += sample.latency * sample.weight;
  }
  summary.mean = total / summary.count;
  const std::vector<absl::Duration> values = Percentiles({50, 90, 95, 99, 100});
  summary.p50 = values[0];
  summary.p90 = values[1];
  summary.p95 = values[2];
  summary.p99 = values[3];
  summary.max = values[4];
  return summary;
}

}  // namespace sluice
