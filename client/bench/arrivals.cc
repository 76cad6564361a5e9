#include "client/bench/arrivals.h"

namespace sluice {

absl::Duration Arrivals::NextGap() {
  const double mean = 1 / options_.rate;
  if (options_.process == ArrivalProcess::kUniform) return absl::Seconds(mean);
  return absl::Seconds(random_.Gamma(options_.burstiness) * mean / options_.burstiness);
}

}  // namespace sluice
