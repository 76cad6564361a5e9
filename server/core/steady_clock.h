// The clock of production: what decides is monotonic and deaf to changes of the wall clock.
#ifndef SLUICE_SERVER_CORE_STEADY_CLOCK_H_
#define SLUICE_SERVER_CORE_STEADY_CLOCK_H_

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/clock.h"

namespace sluice {

class SteadyClock : public Clock {
 public:
  absl::Duration Now() const override {
    return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }
  absl::Time WallNow() const override { return absl::Now(); }
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_STEADY_CLOCK_H_
