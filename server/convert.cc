#include "server/convert.h"

#include <algorithm>
#include <variant>

#include "absl/time/time.h"
#include "server/status.h"

namespace sluice {
namespace {

// Upper bounds of what one element takes on the wire.
constexpr size_t kIdBytes = 6;
constexpr size_t kAlternativeBytes = 16;
constexpr size_t kLogprobBytes = 32;

size_t WireBytes(const TokenLogprob& logprob) {
  return kLogprobBytes + kAlternativeBytes * logprob.alternatives.size();
}

void Set(const TokenAlternative& alternative, v1::Alternative* out) {
  out->set_token_id(alternative.token);
  out->set_logprob(alternative.logprob);
}

void Set(const TokenLogprob& logprob, v1::TokenLogprob* out) {
  out->set_token_id(logprob.token);
  out->set_logprob(logprob.logprob);
  out->set_rank(logprob.rank);
  for (const TokenAlternative& alternative : logprob.alternatives)
    Set(alternative, out->add_alternatives());
}

void Set(absl::Duration duration, google::protobuf::Duration* out) {
  absl::Duration rest;
  out->set_seconds(
      absl::IDivDuration(std::max(duration, absl::ZeroDuration()), absl::Seconds(1), &rest));
  out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
}

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kMaxTokens:
      return v1::FINISH_REASON_MAX_TOKENS;
    case FinishReason::kEos:
      return v1::FINISH_REASON_EOS;
    case FinishReason::kStopString:
      return v1::FINISH_REASON_STOP_STRING;
    case FinishReason::kStopToken:
      return v1::FINISH_REASON_STOP_TOKEN;
    case FinishReason::kTimeLimit:
      return v1::FINISH_REASON_TIME_LIMIT;
    case FinishReason::kError:
      return v1::FINISH_REASON_ERROR;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

// The longest prefix of whole UTF-8 characters within `max_bytes`; at least one character.
size_t TextPiece(const std::string& text, size_t begin, size_t max_bytes) {
  if (text.size() - begin <= max_bytes) return text.size() - begin;
  size_t end = begin + max_bytes;
  while (end > begin && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return end > begin ? end - begin : max_bytes;
}

// Hands out messages, and begins a new one when the next element would make the last too large.
template <typename Response, typename Payload>
class Pieces {
 public:
  Pieces(std::vector<Response>* out, size_t max_bytes, Payload* (Response::*start)())
      : out_(*out), max_bytes_(max_bytes), start_(start) {}

  Payload* Next(size_t bytes) {
    if (payload_ == nullptr || used_ + bytes > max_bytes_) {
      payload_ = (out_.emplace_back().*start_)();
      used_ = 0;
    }
    used_ += bytes;
    return payload_;
  }

 private:
  std::vector<Response>& out_;
  const size_t max_bytes_;
  Payload* (Response::*const start_)();
  Payload* payload_ = nullptr;
  size_t used_ = 0;
};

template <typename Response>
void AppendLogprobs(const PromptLogprobsEvent& event, size_t max_bytes,
                    v1::PromptLogprobs* (Response::*start)(), std::vector<Response>* out) {
  Pieces<Response, v1::PromptLogprobs> pieces(out, max_bytes, start);
  for (const TokenLogprob& logprob : event.logprobs) {
    Set(logprob, pieces.Next(WireBytes(logprob))->add_logprobs());
  }
}

void AppendDelta(const DeltaEvent& event, size_t max_bytes,
                 std::vector<v1::GenerateResponse>* out) {
  const size_t first = out->size();
  Pieces<v1::GenerateResponse, v1::Delta> pieces(out, max_bytes,
                                                 &v1::GenerateResponse::mutable_delta);
  for (size_t begin = 0; begin < event.text.size();) {
    const size_t size = TextPiece(event.text, begin, max_bytes);
    pieces.Next(size)->mutable_text()->append(event.text, begin, size);
    begin += size;
  }
  for (const int32_t id : event.token_ids) pieces.Next(kIdBytes)->add_token_ids(id);
  for (const TokenLogprob& logprob : event.logprobs)
    Set(logprob, pieces.Next(WireBytes(logprob))->add_logprobs());
  for (size_t i = first; i < out->size(); ++i) (*out)[i].mutable_delta()->set_index(event.index);
}

void SetFinished(const FinishedEvent& event, v1::Finished* out) {
  out->set_index(event.index);
  out->set_reason(ToProto(event.reason));
  out->set_matched_stop(event.matched_stop);
  out->mutable_usage()->set_prompt_tokens(event.usage.prompt_tokens);
  out->mutable_usage()->set_reused_tokens(event.usage.reused_tokens);
  out->mutable_usage()->set_new_tokens(event.usage.new_tokens);
  Set(event.timings.queue, out->mutable_timings()->mutable_queue());
  Set(event.timings.prefill, out->mutable_timings()->mutable_prefill());
  Set(event.timings.decode, out->mutable_timings()->mutable_decode());
  Set(event.timings.time_to_first_token, out->mutable_timings()->mutable_time_to_first_token());
  if (!event.status.ok()) *out->mutable_status() = ToRpcStatus(event.status);
  if (event.session != nullptr) ToProto(*event.session, out->mutable_session());
}

v1::StateTier ToProto(StateTier tier) {
  switch (tier) {
    case StateTier::kNone:
      return v1::STATE_TIER_UNSPECIFIED;
    case StateTier::kDevice:
      return v1::STATE_TIER_DEVICE;
    case StateTier::kHost:
      return v1::STATE_TIER_HOST;
    case StateTier::kDisk:
      return v1::STATE_TIER_DISK;
  }
  return v1::STATE_TIER_UNSPECIFIED;
}

void Set(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t seconds = absl::ToUnixSeconds(time);
  out->set_seconds(seconds);
  out->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

}  // namespace

void ToProto(const SessionInfo& session, v1::Session* out) {
  out->set_id(session.id);
  out->set_unreadable(session.unreadable);
  if (session.unreadable && session.etag.empty()) return;  // no more is known
  out->set_affinity(session.affinity);
  out->set_etag(session.etag);
  out->set_position(session.position);
  out->set_model_fingerprint(session.fingerprint);
  out->set_numerics_id(session.numerics_id);
  out->set_tier(ToProto(session.tier));
  out->set_busy(session.busy);
  out->set_state_bytes(session.state_bytes);
  out->set_durable(session.durable);
  out->set_last_request_id(session.last_request_id);
  Set(session.create_time, out->mutable_create_time());
  Set(session.update_time, out->mutable_update_time());
  // A time more than ten thousand years away does not fit, and counts as never.
  if (session.expire_time < absl::FromUnixSeconds(253402300800)) {
    Set(session.expire_time, out->mutable_expire_time());
  }
  for (const auto& [key, value] : session.labels) (*out->mutable_labels())[key] = value;
}

std::vector<v1::GenerateResponse> GenerateConverter::Convert(std::vector<TokenEvent> events) {
  std::vector<Response> out;
  out.reserve(events.size());
  for (const TokenEvent& event : events) {
    if (const auto* started = std::get_if<StartedEvent>(&event)) {
      v1::Started* message = out.emplace_back().mutable_started();
      message->set_request_id(request_id_);
      message->set_prompt_tokens(started->prompt_tokens);
      message->set_seed(started->seed);
    } else if (const auto* logprobs = std::get_if<PromptLogprobsEvent>(&event)) {
      AppendLogprobs(*logprobs, max_bytes_, &Response::mutable_prompt_logprobs, &out);
    } else if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
      AppendDelta(*delta, max_bytes_, &out);
    } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
      SetFinished(*finished, out.emplace_back().mutable_finished());
    }
  }
  for (Response& message : out) message.set_sequence_number(next_number_++);
  return out;
}

std::vector<v1::ScoreResponse> ScoreConverter::Convert(std::vector<TokenEvent> events) {
  std::vector<Response> out;
  for (const TokenEvent& event : events) {
    if (const auto* logprobs = std::get_if<PromptLogprobsEvent>(&event)) {
      AppendLogprobs(*logprobs, max_bytes_, &Response::mutable_logprobs, &out);
    } else if (const auto* summary = std::get_if<ScoreSummaryEvent>(&event)) {
      v1::ScoreSummary* message = out.emplace_back().mutable_summary();
      message->set_tokens(summary->tokens);
      message->set_scored_tokens(summary->scored_tokens);
      message->set_total_logprob(summary->total_logprob);
      for (const TokenAlternative& next : summary->next) Set(next, message->add_next());
    }
  }
  return out;
}

}  // namespace sluice
