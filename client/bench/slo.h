// Service level objectives: which requests were good enough.
#ifndef SLUICE_CLIENT_BENCH_SLO_H_
#define SLUICE_CLIENT_BENCH_SLO_H_

#include <cstdint>

#include "absl/time/time.h"
#include "client/bench/record.h"

namespace sluice {

// Infinite: no objective. A value that equals its objective meets it.
struct SloTargets {
  absl::Duration first_token = absl::InfiniteDuration();
  absl::Duration inter_token = absl::InfiniteDuration();  // of the request's mean
  absl::Duration whole = absl::InfiniteDuration();

  bool any() const {
    return first_token != absl::InfiniteDuration() || inter_token != absl::InfiniteDuration() ||
           whole != absl::InfiniteDuration();
  }
};

enum class SloVerdict : uint8_t { kMet, kMissed, kUndecided };

// Rejected and failed requests missed. A request that was cut off missed if it had used up the time
// to its first token or for the whole; otherwise the result is unknown.
SloVerdict Judge(const SloTargets& targets, const RequestRecord& request);

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_SLO_H_
