#include "client/bench/slo.h"

#include <algorithm>

namespace sluice {

SloVerdict Judge(const SloTargets& targets, const RequestRecord& request) {
  if (request.outcome == Outcome::kRejected || request.outcome == Outcome::kFailed) {
    return SloVerdict::kMissed;
  }
  // A request without tokens took at least until its end for the first one.
  const absl::Duration first_token = std::min(request.first_token(), request.whole());
  if (first_token > targets.first_token || request.whole() > targets.whole) {
    return SloVerdict::kMissed;
  }
  if (request.outcome == Outcome::kCutOff) return SloVerdict::kUndecided;
  return request.inter_token() > targets.inter_token ? SloVerdict::kMissed : SloVerdict::kMet;
}

}  // namespace sluice
