// The room that an engine's calls take on the device and in host memory. Internal to engine/.
#ifndef SLUICE_ENGINE_DEVICE_PLACES_H_
#define SLUICE_ENGINE_DEVICE_PLACES_H_

#include <cstdint>
#include <utility>
#include <vector>

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
      if (sequence.slot < 0) continue;
      backend->DropState(sequence.slot);
      slots->Give(std::exchange(sequence.slot, -1));
    }
  }

  // ---- Pages, of a model whose states grow. Each call that has slots is promised the pages that
  // it needs to its end, so no step is ever short of one. ----

  bool paged() const { return copies->table().token_bytes() > 0; }
  // Full pages of the prompt, which all sequences of a call share.
  static int64_t PromptPages(const Call& call) {
    return (call.base + call.prompt_rows()) / kPageTokens;
  }
  // The most that a call takes, from an empty state or one of the host's.
  int64_t MostPages(const Call& call) const {
    if (!paged()) return 0;
    const int64_t one = PagesFor(call.final_tokens());
    return one + (call.request.n - 1) * (one - PromptPages(call));
  }
  // That a call takes which comes back from the host, where its sequences share nothing yet.
  static int64_t PagesFromHost(const Call& call) { return PagesBehind(call, /*held=*/false); }
  // That calls with slots have yet to take.
  int64_t Promised(const std::vector<Call*>& calls) const {
    int64_t pages = 0;
    if (!paged()) return pages;
    for (const Call* call : calls) {
      if (call->has_slots()) pages += PagesBehind(*call, /*held=*/true);
    }
    return pages;
  }

 private:
  // What its open sequences take from now on, with or without what their slots hold already.
  static int64_t PagesBehind(const Call& call, bool held) {
    const int64_t last = PagesFor(call.final_tokens());
    int64_t pages = 0;
    for (const Sequence& sequence : call.sequences) {
      if (sequence.finished) continue;
      pages += last;
      if (sequence.index > 0 && call.in_prompt()) {
        pages -= PromptPages(call);
      } else if (held) {
        pages -= PagesFor(call.seen(sequence));
      }
    }
    return pages;
  }
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_DEVICE_PLACES_H_
