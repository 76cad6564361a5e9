// Calls whose reader is too slow: they wait, and give their slots up when others want them.

#include <algorithm>

#include "engine/engine.h"

namespace sluice {

void Engine::PollReaders(absl::Duration now) {
  for (Call* call : admitted_) {
    if (call->state != CallState::kReady && call->state != CallState::kPaused) continue;
    const int32_t needed = RoomForStep(call->request.n) * (call->steps_in_flight + 1);
    const bool has_room = call->sink->Room() >= needed;
    if (call->state == CallState::kReady && !has_room) {
      call->state = CallState::kPaused;
      call->paused_since = now;
    } else if (call->state == CallState::kPaused && has_room) {
      call->state = CallState::kReady;
    }
  }
}

bool Engine::SpillOne(absl::Duration now) {
  Call* longest = nullptr;
  for (Call* call : admitted_) {
    if (call->state != CallState::kPaused || call->steps_in_flight > 0) continue;
    if (call->paused_since + options_.slot_patience > now) continue;
    if (longest == nullptr || call->paused_since < longest->paused_since) longest = call;
  }
  if (longest == nullptr) return false;
  // Where host memory is full its slots stay its own until its reader is given up.
  if (!states_.Reserve(longest->open_sequences, 0, &longest->spill_room).ok()) return false;
  for (Sequence& sequence : longest->sequences) {
    if (!sequence.finished) sequence.host = copies_.Read(sequence.slot, &sequence.copy);
  }
  // The copies are ordered before whatever is done to the slots next.
  GiveSlots(longest);
  longest->state = CallState::kSpilled;
  stats_.spills.Add();
  return true;
}

bool Engine::ReturnSpilled() {
  for (Call* call : admitted_) {
    if (call->state != CallState::kSpilled || call->sink->Room() < RoomForStep(call->request.n))
      continue;
    const bool copied =
        std::all_of(call->sequences.begin(), call->sequences.end(),
                    [&](const Sequence& s) { return s.finished || copies_.Done(s.copy); });
    if (!copied || !states_.FreeSlots(call->open_sequences, nullptr)) return false;
    Load(call);
  }
  return true;
}

void Engine::Load(Call* call) {
  TakeSlots(call);
  for (Sequence& sequence : call->sequences) {
    if (!sequence.finished) sequence.copy = copies_.Write(sequence.slot, sequence.host);
  }
  call->state = CallState::kLoading;
}

void Engine::PollLoads() {
  for (Call* call : admitted_) {
    if (call->state != CallState::kLoading) continue;
    const bool loaded =
        std::all_of(call->sequences.begin(), call->sequences.end(),
                    [&](const Sequence& s) { return s.host == nullptr || copies_.Done(s.copy); });
    if (!loaded) continue;
    for (Sequence& sequence : call->sequences) sequence.host.reset();
    call->spill_room.Release();
    if (call->prompt_launched == call->reused) {
      stats_.host_restore_seconds.Observe(
          absl::ToDoubleSeconds(clock_->Now() - call->load_started));
    }
    call->state = CallState::kReady;
  }
}

bool Engine::AwaitCopies() {
  for (const Call* call : admitted_) {
    const bool can_return = call->state == CallState::kSpilled &&
                            call->sink->Room() >= RoomForStep(call->request.n) &&
                            states_.FreeSlots(call->open_sequences, nullptr);
    if (call->state != CallState::kLoading && !can_return) continue;
    for (const Sequence& sequence : call->sequences) {
      if (sequence.host == nullptr) continue;
      const absl::Status status = backend_->Await(sequence.copy);
      if (!status.ok()) {
        FailDevice(status);
        return false;
      }
    }
    return true;
  }
  return false;
}

}  // namespace sluice
