// From the queue into slots: whose turn it is, where a call's state comes from, and what its
// sequences need. Internal to engine/.
#ifndef SLUICE_ENGINE_PLACEMENT_H_
#define SLUICE_ENGINE_PLACEMENT_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/time/time.h"
#include "engine/batch.h"
#include "engine/clock.h"
#include "engine/device_places.h"
#include "engine/prefix_cache.h"
#include "engine/slow_readers.h"
#include "engine/stats.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/waiting_queue.h"

namespace sluice {

class Placement {
 public:
  // A call that is live, or null.
  using FindCall = std::function<Call*(RequestId)>;

  // All pointers outlive the object.
  Placement(const DevicePlaces& places, const Tokenizer* tokenizer, const Clock* clock,
            PrefixCache* prefixes, const SlowReaders* readers, EngineStats* stats,
            FindCall find_call);

  // The call waits for slots from now on.
  void Queue(Call* call);
  // Gives slots to whom they are due: calls that gave theirs up for others, then those whose turn
  // has come, then those who wait for theirs.
  void PlaceWaiting(absl::Duration now);
  // The call, in whatever place, gives back all that it has of the device.
  void Leave(Call* call);
  // Copies the states behind those prompts whose prefixes end with the step just launched.
  void KeepPrefixes(const Batch& batch);

  // The calls that have slots or gave them up, in the order of their admission.
  const std::vector<Call*>& admitted() const { return admitted_; }
  // The number of calls without slots.
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size() + following_.size()); }

 private:
  enum class Outcome : uint8_t { kPlaced, kFollows, kNoSlot };
  bool PlaceFollowing(absl::Duration now);
  Outcome PlaceOne(Call* call, absl::Duration now);
  // False: another call computes what the prompt begins with, or it is on its way to the host.
  bool FindPrefix(Call* call, StatePtr* state);
  // True if there are pages for the call, which goes on from `state` (null: none): pages of states
  // that have other places are taken. The state may have no slot any more.
  bool MakePages(const Call& call, State* state, absl::Duration now);
  bool WillCompute(RequestId id, int64_t tokens) const;
  void LoadStart(Call* call, State* state, bool take_slot);
  void Prepare(Call* call);

  const DevicePlaces places_;
  const Tokenizer* const tokenizer_;
  const Clock* const clock_;
  PrefixCache* const prefixes_;
  const SlowReaders* const readers_;
  EngineStats* const stats_;
  const FindCall find_call_;
  WaitingQueue waiting_;
  std::vector<Call*> following_;  // in the order in which their turns came
  std::vector<Call*> admitted_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_PLACEMENT_H_
