#include "client/bench/latency.h"

#include <algorithm>

namespace sluice {

void LatencySamples::AddAll(const LatencySamples& other) {
  samples_.insert(samples_.end(), other.samples_.begin(), other.samples_.end());
}

LatencySummary LatencySamples::Summarize() const {
  LatencySummary summary;
  if (samples_.empty()) return summary;
  std::vector<Sample> sorted = samples_;
  std::sort(sorted.begin(), sorted.end(),
            [](const Sample& a, const Sample& b) { return a.latency < b.latency; });
  absl::Duration total;
  for (const Sample& sample : sorted) {
    summary.count += sample.weight;
    total += sample.latency * sample.weight;
  }
  summary.mean = total / summary.count;
  summary.max = sorted.back().latency;

  // The smallest latency that at least `percent` of the weight does not exceed.
  size_t i = 0;
  int64_t weight_so_far = sorted[0].weight;
  const auto percentile = [&](int64_t percent) {
    while (weight_so_far * 100 < summary.count * percent) weight_so_far += sorted[++i].weight;
    return sorted[i].latency;
  };
  summary.p50 = percentile(50);
  summary.p90 = percentile(90);
  summary.p99 = percentile(99);
  return summary;
}

}  // namespace sluice
