#include "client/bench/stream.h"

#include <chrono>
#include <utility>

#include "client/proto_time.h"

namespace sluice {
namespace {

constexpr char kAffinityKey[] = "x-sluice-affinity";
// Sessions of a benchmark that ended before it could remove them do not stay for long.
constexpr absl::Duration kSessionTtl = absl::Minutes(10);

}  // namespace

absl::Duration BenchNow() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

BenchStream::BenchStream(v1::GenerateRequest request, const StreamOptions& options,
                         std::atomic<int64_t>* token_counter, OnDoneCallback on_done)
    : request_(std::move(request)),
      origin_(options.origin),
      token_counter_(token_counter),
      on_done_(std::move(on_done)) {
  record_.index = options.index;
  record_.due = options.due - origin_;
  record_.turn = options.turn;
  for (grpc::ClientContext* context : {&context_, &session_context_}) {
    if (options.timeout != absl::InfiniteDuration()) {
      context->set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
    }
    if (!options.session_id.empty()) context->AddMetadata(kAffinityKey, options.session_id);
  }
  request_.set_session_id(options.session_id);
}

void BenchStream::Start(v1::InferenceService::Stub* stub, v1::SessionService::Stub* sessions) {
  record_.sent = Now();
  if (!session_id().empty() && record_.turn == 0) {
    CreateSession(stub, sessions);
  } else {
    Generate(stub);
  }
}

void BenchStream::CreateSession(v1::InferenceService::Stub* stub,
                                v1::SessionService::Stub* sessions) {
  session_request_.mutable_options()->set_id(session_id());
  *session_request_.mutable_options()->mutable_ttl() = ToProto(kSessionTtl);
  sessions->async()->CreateSession(&session_context_, &session_request_, &session_,
                                   [this, stub](const grpc::Status& status) {
                                     if (status.ok()) {
                                       Generate(stub);
                                     } else {
                                       OnDone(status);
                                     }
                                   });
}

void BenchStream::Generate(v1::InferenceService::Stub* stub) {
  stub->async()->Generate(&context_, &request_, this);
  StartRead(&response_);
  StartCall();
}

void BenchStream::Cancel() {
  session_context_.TryCancel();
  context_.TryCancel();
}

void BenchStream::OnReadDone(bool ok) {
  if (!ok) return;  // OnDone follows
  if (response_.has_started()) {
    record_.prompt_tokens = response_.started().prompt_tokens();
  } else if (response_.has_delta() && response_.delta().token_ids_size() > 0) {
    CountTokens(response_.delta().token_ids_size());
  } else if (response_.has_finished()) {
    OnFinished(response_.finished());
  }
  StartRead(&response_);
}

void BenchStream::CountTokens(int32_t tokens) {
  record_.messages.push_back({Now(), tokens});
  token_counter_->fetch_add(tokens, std::memory_order_relaxed);
}

void BenchStream::OnFinished(const v1::Finished& finished) {
  finished_ = finished.reason() != v1::FINISH_REASON_ERROR;
  record_.reused_tokens = finished.usage().reused_tokens();
  record_.queued = FromProto(finished.timings().queue());
}

void BenchStream::OnDone(const grpc::Status& status) {
  status_ = status;
  record_.ended = Now();
  on_done_(this);
}

}  // namespace sluice
