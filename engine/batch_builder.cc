#include "engine/batch_builder.h"

namespace sluice {
namespace {

bool CanDecode(const Call& call, const Sequence& sequence) {
  return call.goes_on(sequence) && !(call.exact && sequence.launched != sequence.received);
}

bool Decodes(const Call& call) { return call.state == CallState::kReady && !call.in_prompt(); }

// The position of the first token that the call samples, counted from its session's first.
int64_t FirstNewPosition(const Call& call) {
  return call.base + static_cast<int64_t>(call.request.prompt.size());
}

constexpr SamplingConfig kGreedy = {.temperature = 0.0f};

}  // namespace

bool BatchBuilder::Build(absl::Span<Call* const> calls, StepPacer* pacer, Batch* batch) {
  batch->Clear();
  pacer->Begin(calls);
  const bool bounded = pacer->bounded();
  for (Call* call : calls) {
    if (!Decodes(*call) || (bounded && !HasPromise(*call))) continue;
    AddDecodeRows(
        call, [](const Sequence&) { return true; }, batch);
  }
  const int64_t own_rows = batch->num_rows;
  if (bounded) AddInTurns(calls, pacer->OtherRows(own_rows), batch);
  const bool other_rows = batch->num_rows > own_rows;
  const bool other_prompts = AddPrompts(calls, *pacer, own_rows, batch);
  if (batch->shares.empty()) return false;
  pacer->Formed(other_rows || other_prompts);
  AddBannedIds(batch);
  batch->results.resize(batch->logits.size());
  batch->rows = {batch->decode.data(),  static_cast<int32_t>(batch->decode.size()),
                 batch->prompts.data(), static_cast<int32_t>(batch->prompts.size()),
                 batch->logits.data(),  static_cast<int32_t>(batch->logits.size()),
                 batch->results.data()};
  return true;
}

// Up to `most` rows of sequences without a promise; each has its turn once in a round.
void BatchBuilder::AddInTurns(absl::Span<Call* const> calls, int64_t most, Batch* batch) {
  const int64_t limit = batch->num_rows + most;
  bool all = true;
  const auto has_turn = [&](Sequence& sequence) {
    const bool waits = sequence.round != round_;
    const bool taken = waits && batch->num_rows < limit;
    if (taken) sequence.round = round_;
    if (waits && !taken) all = false;
    if (!taken) ++batch->held_rows;
    return taken;
  };
  for (Call* call : calls) {
    if (Decodes(*call) && !HasPromise(*call)) AddDecodeRows(call, has_turn, batch);
  }
  if (all) ++round_;
}

// Returns true if a prompt without a promise is among them, while the step is bounded.
bool BatchBuilder::AddPrompts(absl::Span<Call* const> calls, const StepPacer& pacer,
                              int64_t own_rows, Batch* batch) {
  const int64_t left = max_batch_tokens_ - batch->num_rows;
  const int64_t others =
      pacer.bounded() ? pacer.OtherPromptTokens(own_rows, batch->num_rows) : left;
  bool others_served = false;
  for (const PromptTurns::Turn& turn : prompt_turns_.Divide(calls, {left, others})) {
    if (pacer.bounded() && !HasPromise(*turn.call)) others_served = true;
    AddPrompt(turn.call, turn.length, batch);
  }
  return others_served;
}

template <typename Wanted>
void BatchBuilder::AddDecodeRows(Call* call, Wanted wanted, Batch* batch) const {
  BatchShare share{call, 0, 0, batch->logits.size(), 0};
  for (Sequence& sequence : call->sequences) {
    if (!CanDecode(*call, sequence) || !wanted(sequence)) continue;
    const bool known = sequence.received == sequence.launched;
    // The token sampled last, which stands before the one that this row samples.
    const int64_t position = FirstNewPosition(*call) + sequence.launched - 1;
    batch->decode.push_back({sequence.slot, known ? sequence.last_token : kLastSampled, position});
    AddSample(call, &sequence, batch->num_rows++, batch);
  }
  share.logits_end = batch->logits.size();
  if (share.logits_end == share.logits_begin) return;
  batch->shares.push_back(share);
  ++call->steps_in_flight;
}

void BatchBuilder::AddPrompt(Call* call, int64_t length, Batch* batch) const {
  const int64_t begin = call->prompt_launched;
  const int64_t end = begin + length;
  const int32_t first_row = batch->num_rows;
  BatchShare share{call, begin, end, batch->logits.size(), 0};
  batch->prompts.push_back({call->sequences[0].slot, begin, static_cast<int32_t>(length),
                            call->request.prompt.data() + begin, call->base + begin});
  batch->num_rows += static_cast<int32_t>(length);
  call->prompt_launched = end;
  if (call->request.output.prompt_logprobs >= 0)
    AddPromptScores(call, begin, end, first_row, batch);
  if (!call->in_prompt()) {
    for (Sequence& sequence : call->sequences) {
      if (CanDecode(*call, sequence)) AddSample(call, &sequence, batch->num_rows - 1, batch);
    }
    const bool looked_at = call->request.output.prompt_logprobs >= 0;
    if (call->commits && call->request.stop.max_new_tokens == 0 && !looked_at) {
      AddStateCheck(call, batch);
    }
  }
  share.logits_end = batch->logits.size();
  batch->shares.push_back(share);
  ++call->steps_in_flight;
}

void BatchBuilder::AddPromptScores(Call* call, int64_t begin, int64_t end, int32_t first_row,
                                   Batch* batch) const {
  const auto tokens = static_cast<int64_t>(call->request.prompt.size());
  for (int64_t i = begin; i < end && i + 1 < tokens; ++i) {
    LogitRow row;
    row.row = first_row + static_cast<int32_t>(i - begin);
    row.target = call->request.prompt[i + 1];
    row.alternatives = call->request.output.prompt_logprobs;
    batch->logits.push_back(row);
    batch->targets.push_back({call, kPromptToken});
  }
}

// Checks a state that is committed without a token sampled from it.
void BatchBuilder::AddStateCheck(Call* call, Batch* batch) const {
  LogitRow row;
  row.row = batch->num_rows - 1;
  row.target = call->request.prompt.back();
  batch->logits.push_back(row);
  batch->targets.push_back({call, kStateCheck});
}

void BatchBuilder::AddSample(Call* call, Sequence* sequence, int32_t row_index,
                             Batch* batch) const {
  const Request& request = call->request;
  LogitRow row;
  row.row = row_index;
  row.slot = sequence->slot;
  row.seed = request.seed;
  row.sequence = static_cast<uint32_t>(sequence->index);
  row.position = static_cast<uint64_t>(FirstNewPosition(*call) + sequence->launched);
  if (request.kind == RequestKind::kScore) {
    row.sampling = &kGreedy;
    row.alternatives = request.score_alternatives;
  } else {
    row.sampling = &request.sampling;
    row.alternatives = request.output.logprobs;
    row.counts = sequence->counts;
    row.bias = request.logit_bias.data();
    row.num_bias = static_cast<int32_t>(request.logit_bias.size());
  }
  const bool ban_stops = sequence->launched < request.stop.min_new_tokens;
  ++sequence->launched;
  batch->logits.push_back(row);
  batch->targets.push_back({call, sequence->index, ban_stops});
}

void BatchBuilder::AddBannedIds(Batch* batch) const {
  size_t most = 0;
  for (const LogitTarget& target : batch->targets) {
    if (target.ban_stops)
      most += eos_token_ids_.size() + target.call->request.stop.token_ids.size();
  }
  batch->banned.clear();
  batch->banned.reserve(most);  // the rows point into it: it must not move
  for (size_t i = 0; i < batch->logits.size(); ++i) {
    if (!batch->targets[i].ban_stops) continue;
    const StopConditions& stop = batch->targets[i].call->request.stop;
    const size_t begin = batch->banned.size();
    if (!stop.ignore_eos) {
      batch->banned.insert(batch->banned.end(), eos_token_ids_.begin(), eos_token_ids_.end());
    }
    batch->banned.insert(batch->banned.end(), stop.token_ids.begin(), stop.token_ids.end());
    batch->logits[i].banned = batch->banned.data() + begin;
    batch->logits[i].num_banned = static_cast<int32_t>(batch->banned.size() - begin);
  }
}

}  // namespace sluice
