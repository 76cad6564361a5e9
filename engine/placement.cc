#include "engine/placement.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "kernels/check.h"

namespace sluice {
namespace {

constexpr int64_t kMostEchoed = 4096;  // tokens; about what a large step computes

bool NeedsCounts(const SamplingConfig& sampling) {
  return sampling.repetition_penalty != 1.0f || sampling.presence_penalty != 0.0f ||
         sampling.frequency_penalty != 0.0f;
}

}  // namespace

Placement::Placement(const DevicePlaces& places, const Tokenizer* tokenizer, const Clock* clock,
                     PrefixCache* prefixes, const SlowReaders* readers, EngineStats* stats,
                     FindCall find_call)
    : places_(places),
      tokenizer_(tokenizer),
      clock_(clock),
      prefixes_(prefixes),
      readers_(readers),
      stats_(stats),
      find_call_(std::move(find_call)) {}

void Placement::Queue(Call* call) {
  call->state = CallState::kQueued;
  waiting_.Push(call);
}

void Placement::PlaceWaiting(absl::Duration now) {
  // A call that gave its slots up for others goes before any that has never had one, and one whose
  // turn has come before those who wait for theirs.
  if (!readers_->ReturnSpilled(admitted_) || !PlaceFollowing(now)) return;
  while (Call* call = waiting_.Front()) {
    const Outcome outcome = PlaceOne(call, now);
    if (outcome == Outcome::kNoSlot) return;
    waiting_.Pop();
    if (outcome == Outcome::kPlaced) continue;
    stats_->prefix_waits.Add();
    call->state = CallState::kFollowing;
    following_.push_back(call);
  }
}

bool Placement::PlaceFollowing(absl::Duration now) {
  for (auto it = following_.begin(); it != following_.end();) {
    Call* call = *it;
    if (WillCompute(call->leader, call->leader_tokens)) {
      ++it;
      continue;
    }
    const Outcome outcome = PlaceOne(call, now);
    if (outcome == Outcome::kNoSlot) return false;
    it = outcome == Outcome::kPlaced ? following_.erase(it) : it + 1;
  }
  return true;
}

void Placement::Leave(Call* call) {
  if (call->state == CallState::kQueued) return waiting_.Erase(*call);
  if (call->state == CallState::kFollowing) {
    following_.erase(std::find(following_.begin(), following_.end(), call));
    return;
  }
  prefixes_->End(&call->plan);
  call->spill_room.Release();
  admitted_.erase(std::find(admitted_.begin(), admitted_.end(), call));
  // Steps in flight still write the slots; whoever gets them next is ordered after.
  places_.GiveSlots(call);
  for (Sequence& sequence : call->sequences) {
    if (sequence.counts >= 0) places_.count_tables->Give(std::exchange(sequence.counts, -1));
  }
}

Placement::Outcome Placement::PlaceOne(Call* call, absl::Duration now) {
  StatePtr state = call->use != nullptr ? call->use->state : nullptr;
  // Its copy to the host is not complete yet, and its slot is somebody else's already.
  if (state != nullptr && !state->on_device() && !state->data_ready()) return Outcome::kNoSlot;
  const int32_t n = call->request.n;
  // Calls that gave their slots up keep their tables of counts.
  if (NeedsCounts(call->request.sampling) && places_.count_tables->free() < n)
    return Outcome::kNoSlot;
  const auto has_room = [&] { return places_.slots->free() + places_.states->slots_held() >= n; };
  while (!has_room() && readers_->SpillOne(admitted_, now)) {
  }
  if (!has_room() || !MakePages(*call, state.get(), now)) return Outcome::kNoSlot;
  if (state == nullptr && !FindPrefix(call, &state)) return Outcome::kFollows;
  // The session's next state takes the place of this one, so its slot may be worked in; the host
  // has it.
  const bool take_slot =
      state != nullptr && state->on_device() &&
      ((call->commits && state == call->use->state) || places_.slots->free() < n);
  SLUICE_CHECK(places_.states->FreeSlots(n - (take_slot ? 1 : 0), state.get()));
  call->sequences.resize(n);
  call->open_sequences = n;
  for (int32_t i = 0; i < n; ++i) call->sequences[i].index = i;
  admitted_.push_back(call);
  LoadStart(call, state.get(), take_slot);
  Prepare(call);
  return Outcome::kPlaced;
}

bool Placement::MakePages(const Call& call, State* state, absl::Duration now) {
  if (!places_.paged()) return true;
  const int64_t most = places_.MostPages(call);
  const auto make = [&](int64_t wanted, const State* keep) {
    do {
      if (places_.states->FreePages(wanted, places_.Promised(admitted_), keep)) return true;
    } while (readers_->SpillOne(admitted_, now));
    return false;
  };
  if (state == nullptr || !state->on_device()) return make(most, state);
  // A state that is replaced brings all its pages, one that is copied those that are full.
  const int64_t seen = state->info.seen();
  const int64_t brought = call.commits ? PagesFor(seen) : seen / kPageTokens;
  if (make(most - brought, state)) return true;
  if (!state->data_ready()) return false;
  places_.states->LeaveSlot(state);
  return make(most, nullptr);
}

bool Placement::FindPrefix(Call* call, StatePtr* state) {
  const Request& request = call->request;
  const int64_t limit = prefixes_->Limit(call->prompt_rows());
  if (limit == 0 || request.bypass_prefix_cache || request.kind == RequestKind::kScore) return true;
  // Log-probabilities of the prompt want all of it computed.
  const bool reads = request.output.prompt_logprobs < 0;
  PrefixMatch match;
  if (reads) {
    // The reused part of a prompt is echoed in one piece.
    const int64_t most = request.output.echo ? std::min(limit, kMostEchoed) : limit;
    match =
        prefixes_->Find(request.tenant, request.prompt, most,
                        [this](RequestId id, int64_t tokens) { return WillCompute(id, tokens); });
    call->leader = match.leader;
    call->leader_tokens = match.leader_tokens;
    if (match.leader != 0) {
      PrefixCache::AddCut(&find_call_(match.leader)->plan, match.leader_tokens);
      return false;
    }
    *state = match.state;
    if (*state != nullptr && !(*state)->on_device() && !(*state)->data_ready()) return false;
    stats_->prefix_queries.Add(call->prompt_tokens());
    stats_->prefix_hits.Add(match.tokens);
    (match.tokens > 0 ? stats_->prefix_hit_calls : stats_->prefix_miss_calls).Add();
  }
  call->reused = call->prompt_launched = call->prompt_done = match.tokens;
  call->plan =
      prefixes_->Begin(request.tenant, request.prompt, limit, match.tokens, reads ? call->id : 0);
  return true;
}

bool Placement::WillCompute(RequestId id, int64_t tokens) const {
  const Call* call = find_call_(id);
  // One whose reader is slow is waited for by nobody.
  return call != nullptr &&
         (call->state == CallState::kReady || call->state == CallState::kLoading) &&
         call->prompt_launched < tokens;
}

void Placement::KeepPrefixes(const Batch& batch) {
  for (const BatchShare& share : batch.shares) {
    Call* call = share.call;
    const std::vector<int64_t>& cuts = call->plan.cuts;
    const bool at_cut = !cuts.empty() && call->prompt_launched == cuts.front();
    if (at_cut) prefixes_->Keep(&call->plan, call->sequences[0].slot);
  }
}

void Placement::LoadStart(Call* call, State* state, bool take_slot) {
  Sequence& first = call->sequences[0];
  call->state = CallState::kReady;
  if (take_slot) first.slot = places_.states->TakeSlot(state);
  places_.TakeSlots(call);
  if (state == nullptr) {
    places_.backend->ZeroState(first.slot);
  } else if (take_slot || state->on_device()) {
    if (!take_slot) places_.states->CopyTo(*state, first.slot);
    stats_->device_restores.Add();
  } else {
    first.host = state->data();
    first.copy = places_.copies->Write(first.slot, first.host, state->info.seen());
    call->load_started = clock_->Now();
    call->state = CallState::kLoading;
    stats_->host_restores.Add();
  }
}

void Placement::Prepare(Call* call) {
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
      sequence.counts = places_.count_tables->Take();
      places_.backend->ResetCounts(sequence.counts, call->own_prompt());
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
