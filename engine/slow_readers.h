// Calls whose reader is too slow: they wait, and give their slots up when others want them.
// Internal to engine/.
#ifndef SLUICE_ENGINE_SLOW_READERS_H_
#define SLUICE_ENGINE_SLOW_READERS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/device_places.h"
#include "engine/stats.h"

namespace sluice {

// Each takes the calls that have slots or gave them up, in the order of their admission.
class SlowReaders {
 public:
  using Calls = std::vector<Call*>;

  // A paused call keeps its slots for `patience` while others wait. All pointers outlive the
  // object.
  SlowReaders(const DevicePlaces& places, const Clock* clock, absl::Duration patience,
              EngineStats* stats)
      : places_(places), clock_(clock), patience_(patience), stats_(stats) {}

  // kReady <-> kPaused, by the room in the sinks.
  void PollReaders(const Calls& calls, absl::Duration now) const;
  // kLoading -> kReady, once the states are in their slots.
  void PollLoads(const Calls& calls) const;
  // The call that has waited longest beyond its patience gives its slots up. False: there is none,
  // or no room in host memory for its states.
  bool SpillOne(const Calls& calls, absl::Duration now) const;
  // Calls whose readers read again get slots. False: there are too few for the first of them.
  bool ReturnSpilled(const Calls& calls) const;
  // Waits for the copies of a call that could go on with them. False: there is none; the device's
  // error.
  absl::StatusOr<bool> AwaitCopies(const Calls& calls) const;
  // When SpillOne may have a call more to choose from.
  absl::Duration NextDeadline(const Calls& calls) const;

 private:
  static bool IsRead(const Call& call);
  // Makes room for a call that gave its slots up, at the cost of states that have other places.
  bool HasPlace(const Calls& calls, const Call& call) const;

  const DevicePlaces places_;
  const Clock* const clock_;
  const absl::Duration patience_;
  EngineStats* const stats_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SLOW_READERS_H_
