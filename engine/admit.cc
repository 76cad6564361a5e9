// From the queue into slots: where a call's state comes from, and what its sequences need.

#include <algorithm>
#include <utility>

#include "engine/engine.h"

namespace sluice {
namespace {

bool NeedsCounts(const SamplingConfig& sampling) {
  return sampling.repetition_penalty != 1.0f || sampling.presence_penalty != 0.0f ||
         sampling.frequency_penalty != 0.0f;
}

}  // namespace

void Engine::AdmitWaiting(absl::Duration now) {
  // A call that gave its slots up for others goes before any that has never had one.
  if (!ReturnSpilled()) return;
  while (!waiting_.empty()) {
    if (!AdmitOne(waiting_.Front(), now)) return;
  }
}

bool Engine::AdmitOne(Call* call, absl::Duration now) {
  State* state = call->use != nullptr ? call->use->state.get() : nullptr;
  const bool on_device = state != nullptr && state->on_device();
  // Its copy to the host is not complete yet, and its slot is somebody else's already.
  if (state != nullptr && !on_device && !state->data_ready()) return false;
  // The session's next state takes the place of this one, so its slot may be worked in; the host
  // has it.
  const int32_t n = call->request.n;
  const bool take_slot = on_device && (call->commits || slots_.free() < n);
  const int32_t needed = n - (take_slot ? 1 : 0);
  states_.FreeSlots(needed, state);
  while (slots_.free() < needed && SpillOne(now)) {
  }
  if (slots_.free() < needed) return false;
  waiting_.Pop();
  call->sequences.resize(n);
  call->open_sequences = n;
  for (int32_t i = 0; i < n; ++i) call->sequences[i].index = i;
  admitted_.push_back(call);
  LoadStart(call, take_slot);
  Prepare(call);
  return true;
}

void Engine::LoadStart(Call* call, bool take_slot) {
  State* state = call->use != nullptr ? call->use->state.get() : nullptr;
  Sequence& first = call->sequences[0];
  call->state = CallState::kReady;
  if (take_slot) first.slot = states_.TakeSlot(state);
  TakeSlots(call);
  if (state == nullptr) {
    backend_->ZeroState(first.slot);
  } else if (take_slot || state->on_device()) {
    if (!take_slot) states_.CopyTo(*state, first.slot);
    stats_.device_restores.Add();
  } else {
    first.host = state->data();
    first.copy = copies_.Write(first.slot, first.host);
    call->load_started = clock_->Now();
    call->state = CallState::kLoading;
    stats_.host_restores.Add();
  }
}

void Engine::Prepare(Call* call) {
  const Request& request = call->request;
  const bool continues = call->carried > 0;
  const std::string undecoded = continues ? call->use->state->info.undecoded : "";
  const bool needs_text = request.kind == RequestKind::kGenerate &&
                          (request.output.text || !request.stop.strings.empty());
  for (Sequence& sequence : call->sequences) {
    if (needs_text) {
      sequence.text = std::make_unique<TextOutput>(tokenizer_, call->own_prompt(), continues,
                                                   undecoded, request.stop.strings);
    }
    if (NeedsCounts(request.sampling)) {
      sequence.counts = count_tables_.Take();
      backend_->ResetCounts(sequence.counts, call->own_prompt());
    }
    if (call->commits) {
      sequence.history = std::make_unique<StreamDecoder>(tokenizer_, /*continuation=*/true);
      sequence.history->SetPending(IncompleteTail(*tokenizer_, undecoded, call->own_prompt()));
    }
  }
  if (request.output.echo && request.output.text) {
    call->echo = std::make_unique<StreamDecoder>(tokenizer_, continues);
    call->echo->SetPending(undecoded);
  }
}

}  // namespace sluice
