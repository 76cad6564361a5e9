// Tells how old things are that carry the time of day, by a clock that people and machines set.
#ifndef SLUICE_ENGINE_WALL_AGE_H_
#define SLUICE_ENGINE_WALL_AGE_H_

#include <functional>
#include <string>

#include "absl/time/time.h"
#include "engine/clock.h"

namespace sluice {

// Once the time of day has gone ahead of the steady clock by more than an hour, or lies before the
// newest stamp that was seen (clocks of several machines may differ by a minute), ages are not to
// be believed: whoever deletes by them waits anew from then on. Of each such event one line is
// told.
class WallAge {
 public:
  // `tell` may be null.
  WallAge(const Clock* clock, std::function<void(const std::string&)> tell);

  // Time since the stamp; zero for one in the future.
  absl::Duration AgeOf(absl::Time stamp);
  // Looks at the clock alone.
  void Look();
  // When the clock was last found wrong, on the steady clock; -InfiniteDuration: never.
  absl::Duration distrusted() const { return distrusted_; }

 private:
  void Distrust(const std::string& why);

  const Clock* const clock_;
  const std::function<void(const std::string&)> tell_;
  absl::Time origin_;  // the time of day when the steady clock was zero, if neither was set since
  absl::Time newest_ = absl::InfinitePast();
  bool behind_ = false;  // before newest_, and it was told
  absl::Duration distrusted_ = -absl::InfiniteDuration();
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_WALL_AGE_H_
