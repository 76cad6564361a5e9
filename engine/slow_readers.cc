#include "engine/slow_readers.h"

#include <algorithm>

namespace sluice {

bool SlowReaders::IsRead(const Call& call) {
  return call.sink->Room() >= RoomForStep(call.request.n);
}

bool SlowReaders::HasPlace(const Calls& calls, const Call& call) const {
  if (!places_.states->FreeSlots(call.open_sequences, nullptr)) return false;
  return !places_.paged() || places_.states->FreePages(DevicePlaces::PagesFromHost(call),
                                                       places_.Promised(calls), nullptr);
}

void SlowReaders::PollReaders(const Calls& calls, absl::Duration now) const {
  for (Call* call : calls) {
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

void SlowReaders::PollLoads(const Calls& calls) const {
  for (Call* call : calls) {
    if (call->state != CallState::kLoading) continue;
    const bool loaded = std::all_of(
        call->sequences.begin(), call->sequences.end(),
        [&](const Sequence& s) { return s.host == nullptr || places_.copies->Done(s.copy); });
    if (!loaded) continue;
    for (Sequence& sequence : call->sequences) sequence.host.reset();
    call->spill_room.Release();
    if (call->prompt_launched == call->reused) {
      stats_->host_restore_seconds.Observe(
          absl::ToDoubleSeconds(clock_->Now() - call->load_started));
    }
    call->state = CallState::kReady;
  }
}

bool SlowReaders::SpillOne(const Calls& calls, absl::Duration now) const {
  Call* longest = nullptr;
  for (Call* call : calls) {
    if (call->state != CallState::kPaused || call->steps_in_flight > 0) continue;
    if (call->paused_since + patience_ > now) continue;
    // It could never come back: what its sequences share they would no longer.
    if (places_.paged() && DevicePlaces::PagesFromHost(*call) > places_.backend->pages().total) {
      continue;
    }
    if (longest == nullptr || call->paused_since < longest->paused_since) longest = call;
  }
  if (longest == nullptr) return false;
  // When host memory is full its slots stay its own until its reader is given up.
  int64_t bytes = 0;
  for (const Sequence& sequence : longest->sequences) {
    if (!sequence.finished) bytes += places_.states->BytesAt(longest->seen(sequence));
  }
  if (!places_.states->Reserve(bytes, 0, &longest->spill_room).ok()) return false;
  for (Sequence& sequence : longest->sequences) {
    if (sequence.finished) continue;
    sequence.host = places_.copies->Read(sequence.slot, longest->seen(sequence), &sequence.copy);
  }
  // The copies are ordered before whatever is done to the slots next.
  places_.GiveSlots(longest);
  longest->state = CallState::kSpilled;
  stats_->spills.Add();
  return true;
}

bool SlowReaders::ReturnSpilled(const Calls& calls) const {
  for (Call* call : calls) {
    if (call->state != CallState::kSpilled || !IsRead(*call)) continue;
    const bool copied =
        std::all_of(call->sequences.begin(), call->sequences.end(),
                    [&](const Sequence& s) { return s.finished || places_.copies->Done(s.copy); });
    if (!copied || !HasPlace(calls, *call)) return false;
    places_.TakeSlots(call);
    for (Sequence& sequence : call->sequences) {
      if (sequence.finished) continue;
      sequence.copy = places_.copies->Write(sequence.slot, sequence.host, call->seen(sequence));
    }
    call->state = CallState::kLoading;
  }
  return true;
}

absl::StatusOr<bool> SlowReaders::AwaitCopies(const Calls& calls) const {
  for (const Call* call : calls) {
    const bool can_return =
        call->state == CallState::kSpilled && IsRead(*call) && HasPlace(calls, *call);
    if (call->state != CallState::kLoading && !can_return) continue;
    for (const Sequence& sequence : call->sequences) {
      if (sequence.host == nullptr) continue;
      const absl::Status status = places_.backend->Await(sequence.copy);
      if (!status.ok()) return status;
    }
    return true;
  }
  return false;
}

absl::Duration SlowReaders::NextDeadline(const Calls& calls) const {
  absl::Duration next = absl::InfiniteDuration();
  for (const Call* call : calls) {
    if (call->state == CallState::kPaused) next = std::min(next, call->paused_since + patience_);
  }
  return next;
}

}  // namespace sluice
