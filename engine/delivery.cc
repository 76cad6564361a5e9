#include "engine/delivery.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

TokenLogprob MakeLogprob(const LogitResult& result) {
  return {result.token,
          result.logprob,
          result.rank,
          {result.alternatives, result.alternatives + result.num_alternatives}};
}

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

absl::Status NumericFault(Call* call) {
  call->numeric_fault = true;
  return absl::InternalError("numeric fault: the model's logits are not finite");
}

bool IsEmpty(const DeltaEvent& delta) {
  return delta.text.empty() && delta.token_ids.empty() && delta.logprobs.empty();
}

}  // namespace

absl::Status Delivery::Deliver(const Batch& batch, const BatchShare& share,
                               absl::Duration now) const {
  Call* call = share.call;
  if (share.prompt_end > share.prompt_begin) {
    call->prompt_done = share.prompt_end;
    stats_->prompt_tokens.Add(share.prompt_end - share.prompt_begin);
    absl::Status scored = DeliverPromptScores(batch, share);
    if (!scored.ok()) return scored;
    DeliverEcho(call);
    if (call->prompt_done < call->prompt_rows()) return absl::OkStatus();
    call->prompt_done_time = now;
    stats_->prefill_seconds.Observe(absl::ToDoubleSeconds(now - call->first_step_time));
    if (call->request.kind == RequestKind::kScore) return DeliverScoreSummary(call, batch, share);
    if (call->request.stop.max_new_tokens == 0) {
      FinishAll(call, FinishReason::kMaxTokens, now);
    }
  }
  for (size_t i = share.logits_begin; i < share.logits_end; ++i) {
    const int32_t index = batch.targets[i].sequence;
    if (index < 0 || call->sequences[index].finished) continue;
    DeliverToken(call, &call->sequences[index], batch.results[i], now);
  }
  return absl::OkStatus();
}

absl::Status Delivery::DeliverPromptScores(const Batch& batch, const BatchShare& share) const {
  Call* call = share.call;
  PromptLogprobsEvent event;
  for (size_t i = share.logits_begin; i < share.logits_end; ++i) {
    const int32_t index = batch.targets[i].sequence;
    if (index >= 0) continue;
    if (!batch.results[i].finite) return NumericFault(call);
    if (index == kStateCheck) continue;
    call->score_total += batch.results[i].logprob;
    ++call->scored_tokens;
    if (!call->request.score_summary_only) event.logprobs.push_back(MakeLogprob(batch.results[i]));
  }
  if (!event.logprobs.empty()) call->sink->Push(std::move(event));
  return absl::OkStatus();
}

void Delivery::DeliverEcho(Call* call) const {
  if (!call->request.output.echo) return;
  const bool all = call->prompt_done == call->prompt_rows();
  const int64_t end = all ? static_cast<int64_t>(call->request.prompt.size()) : call->prompt_done;
  DeltaEvent delta;
  for (call->echoed = std::max(call->echoed, call->carried); call->echoed < end; ++call->echoed) {
    const int32_t token = call->request.prompt[call->echoed];
    if (call->echo != nullptr) call->echo->Append(token, &delta.text);
    if (call->request.output.token_ids) delta.token_ids.push_back(token);
  }
  const bool nothing_follows = all && call->request.stop.max_new_tokens == 0 && !call->commits;
  if (nothing_follows && call->echo != nullptr) call->echo->Flush(&delta.text);
  if (IsEmpty(delta)) return;
  for (delta.index = 0; delta.index < call->request.n; ++delta.index) call->sink->Push(delta);
}

absl::Status Delivery::DeliverScoreSummary(Call* call, const Batch& batch,
                                           const BatchShare& share) const {
  ScoreSummaryEvent summary;
  summary.tokens = call->prompt_tokens();
  summary.scored_tokens = call->scored_tokens;
  summary.total_logprob = call->score_total;
  for (size_t i = share.logits_begin; i < share.logits_end; ++i) {
    if (batch.targets[i].sequence == kPromptToken) continue;
    const LogitResult& next = batch.results[i];
    if (!next.finite) return NumericFault(call);
    summary.next.assign(next.alternatives, next.alternatives + next.num_alternatives);
  }
  call->sink->Push(std::move(summary));
  call->open_sequences = 0;
  return absl::OkStatus();
}

void Delivery::DeliverToken(Call* call, Sequence* sequence, const LogitResult& result,
                            absl::Duration now) const {
  const Request& request = call->request;
  if (!result.finite) {
    FinishedEvent event;
    event.reason = FinishReason::kError;
    event.status = NumericFault(call);
    return Finish(call, sequence, std::move(event), now);
  }
  RecordToken(*call, sequence, now);
  sequence->last_token = result.token;
  const int64_t new_tokens = ++sequence->received;
  if (sequence->history != nullptr) {
    std::string ignored;
    sequence->history->Append(result.token, &ignored);
  }

  DeltaEvent delta;
  delta.index = sequence->index;
  if (request.output.token_ids) delta.token_ids.push_back(result.token);
  if (request.output.logprobs >= 0) delta.logprobs.push_back(MakeLogprob(result));

  FinishedEvent end;
  bool ended = IsStop(request, result.token, &end.reason);
  if (ended && end.reason == FinishReason::kStopToken) {
    end.matched_stop = std::string(tokenizer_->Piece(result.token));
    end.stop_token = result.token;
  }
  if (sequence->text != nullptr) {
    const std::string* stop_string = nullptr;
    if (!ended || request.stop.include_stop) {
      stop_string = sequence->text->Append(
          result.token, !ended && new_tokens > request.stop.min_new_tokens, &delta.text);
    }
    if (stop_string != nullptr) {
      if (request.stop.include_stop) delta.text += *stop_string;
      if (request.note != nullptr) {
        sequence->said.unsaid =
            absl::StrCat(request.stop.include_stop ? "" : *stop_string, sequence->text->dropped());
      }
      end.reason = FinishReason::kStopString;
      end.matched_stop = *stop_string;
      ended = true;
    }
  }
  if (!ended && new_tokens == request.stop.max_new_tokens) {
    end.reason = FinishReason::kMaxTokens;
    ended = true;
  }
  if (ended && sequence->text != nullptr && end.reason != FinishReason::kStopString) {
    sequence->text->Flush(call->commits, &delta.text);
  }
  if (request.note != nullptr) {
    sequence->said.said += delta.text;
    const bool left_out =
        end.reason == FinishReason::kEos || end.reason == FinishReason::kStopToken;
    if (ended && left_out && !request.stop.include_stop) LeaveOut(result.token, &sequence->said);
  }
  if (!request.output.text) delta.text.clear();
  if (!IsEmpty(delta)) call->sink->Push(std::move(delta));
  if (ended) Finish(call, sequence, std::move(end), now);
}

void Delivery::LeaveOut(int32_t token, HistoryEnd* end) const {
  if (tokenizer_->IsControl(token)) {
    end->control = std::string(tokenizer_->Piece(token));
  } else {
    end->unsaid = std::string(tokenizer_->Text(token));
  }
}

void Delivery::RecordToken(const Call& call, Sequence* sequence, absl::Duration now) const {
  stats_->generated_tokens.Add();
  if (sequence->received == 0) {
    sequence->first_token_time = now;
    stats_->time_to_first_token_seconds.Observe(absl::ToDoubleSeconds(now - call.submitted));
  } else {
    stats_->inter_token_seconds.Observe(absl::ToDoubleSeconds(now - sequence->last_token_time));
  }
  sequence->last_token_time = now;
}

bool Delivery::IsStop(const Request& request, int32_t token, FinishReason* reason) const {
  if (!request.stop.ignore_eos && Contains(eos_token_ids_, token)) {
    *reason = FinishReason::kEos;
    return true;
  }
  if (Contains(request.stop.token_ids, token)) {
    *reason = FinishReason::kStopToken;
    return true;
  }
  return false;
}

void Delivery::FinishAll(Call* call, FinishReason reason, absl::Duration now) const {
  for (Sequence& sequence : call->sequences) {
    if (sequence.finished) continue;
    DeltaEvent rest;
    rest.index = sequence.index;
    if (sequence.text != nullptr && sequence.received > 0) {
      sequence.text->Flush(call->commits, &rest.text);
    }
    if (call->request.note != nullptr) sequence.said.said += rest.text;
    if (call->request.output.text && !rest.text.empty()) call->sink->Push(std::move(rest));
    FinishedEvent event;
    event.reason = reason;
    Finish(call, &sequence, std::move(event), now);
  }
}

void Delivery::Finish(Call* call, Sequence* sequence, FinishedEvent event,
                      absl::Duration now) const {
  event.index = sequence->index;
  event.usage = {call->prompt_tokens(), call->reused, sequence->received};
  event.timings.queue = call->first_step_time - call->submitted;
  if (sequence->received > 0) {
    event.timings.prefill = sequence->first_token_time - call->first_step_time;
    event.timings.decode = sequence->last_token_time - sequence->first_token_time;
    event.timings.time_to_first_token = sequence->first_token_time - call->submitted;
  } else {
    event.timings.prefill = now - call->first_step_time;
  }
  stats_->finished[static_cast<size_t>(event.reason)].Add();
  if (event.reason != FinishReason::kError) {
    stats_->new_tokens.Observe(static_cast<double>(sequence->received));
    if (sequence->received > 0) {
      stats_->decode_seconds.Observe(absl::ToDoubleSeconds(event.timings.decode));
      stats_->compute_seconds.Observe(absl::ToDoubleSeconds(now - call->first_step_time));
    }
  }
  sequence->finished = true;
  --call->open_sequences;
  if (call->commits && event.reason != FinishReason::kError) {
    call->end = std::make_unique<FinishedEvent>(std::move(event));
  } else {
    call->sink->Push(std::move(event));
  }
}

}  // namespace sluice
