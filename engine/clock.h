// The engine's only source of time: a seam, so that tests own it.
#ifndef SLUICE_ENGINE_CLOCK_H_
#define SLUICE_ENGINE_CLOCK_H_

#include "absl/time/time.h"

namespace sluice {

class Clock {
 public:
  virtual ~Clock() = default;
  // Time since an arbitrary origin; never goes back. Any thread.
  virtual absl::Duration Now() const = 0;
  // The time of day: to be shown, and to be left on disk for other processes (wall_age.h). Any
  // thread.
  virtual absl::Time WallNow() const = 0;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_CLOCK_H_
