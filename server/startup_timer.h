// Measures how long each stage of the start takes.
#ifndef SLUICE_SERVER_STARTUP_TIMER_H_
#define SLUICE_SERVER_STARTUP_TIMER_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/clock.h"

namespace sluice {

class StartupTimer {
 public:
  explicit StartupTimer(const Clock* clock) : clock_(clock), began_(clock->Now()), last_(began_) {}

  // `stage` is what happened since the last call.
  void Done(std::string stage) {
    const absl::Duration now = clock_->Now();
    stages_.emplace_back(std::move(stage), now - last_);
    last_ = now;
  }
  absl::Duration total() const { return last_ - began_; }
  const std::vector<std::pair<std::string, absl::Duration>>& stages() const { return stages_; }

 private:
  const Clock* const clock_;
  absl::Duration began_;
  absl::Duration last_;
  std::vector<std::pair<std::string, absl::Duration>> stages_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_STARTUP_TIMER_H_
