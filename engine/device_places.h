// What the calls of an engine take of the device and of host memory. Internal to engine/.
#ifndef SLUICE_ENGINE_DEVICE_PLACES_H_
#define SLUICE_ENGINE_DEVICE_PLACES_H_

#include <utility>

#include "engine/call.h"
#include "engine/slot_pool.h"
#include "engine/state_cache.h"

namespace sluice {

// All outlive whoever is given them.
struct DevicePlaces {
  Backend* backend;
  HostCopies* copies;
  StateCache* states;
  SlotPool* slots;         // of states
  SlotPool* count_tables;  // of tokens, for penalties

  // A slot for each open sequence that has none. There must be as many.
  void TakeSlots(Call* call) const {
    for (Sequence& sequence : call->sequences) {
      if (!sequence.finished && sequence.slot < 0) sequence.slot = slots->Take();
    }
  }
  void GiveSlots(Call* call) const {
    for (Sequence& sequence : call->sequences) {
      if (sequence.slot >= 0) slots->Give(std::exchange(sequence.slot, -1));
    }
  }
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_DEVICE_PLACES_H_
