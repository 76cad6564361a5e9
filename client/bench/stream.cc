#include "client/bench/stream.h"

#include <chrono>
#include <utility>

namespace sluice {

absl::Duration BenchNow() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

BenchStream::BenchStream(v1::GenerateRequest request, absl::Duration scheduled,
                         absl::Duration timeout, std::atomic<int64_t>* token_counter,
                         OnDoneCallback on_done)
    : request_(std::move(request)),
      scheduled_(scheduled),
      token_counter_(token_counter),
      on_done_(std::move(on_done)) {
  if (timeout != absl::InfiniteDuration()) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  }
}

void BenchStream::Start(v1::InferenceService::Stub* stub) {
  stub->async()->Generate(&context_, &request_, this);
  StartRead(&response_);
  StartCall();
}

void BenchStream::OnReadDone(bool ok) {
  if (!ok) return;  // OnDone follows
  if (response_.has_started()) {
    result_.prompt_tokens = response_.started().prompt_tokens();
  } else if (response_.has_delta() && response_.delta().token_ids_size() > 0) {
    CountTokens(response_.delta().token_ids_size());
  } else if (response_.has_finished()) {
    result_.finished = response_.finished().reason() != v1::FINISH_REASON_ERROR;
  }
  StartRead(&response_);
}

void BenchStream::CountTokens(int64_t tokens) {
  const absl::Duration now = BenchNow();
  if (result_.messages == 0) {
    result_.first_token = now - scheduled_;
  } else {
    const absl::Duration gap = now - last_message_;
    result_.between_messages.Add(gap);
    result_.inter_token.Add(gap / tokens, static_cast<int32_t>(tokens));
  }
  last_message_ = now;
  ++result_.messages;
  result_.new_tokens += tokens;
  token_counter_->fetch_add(tokens, std::memory_order_relaxed);
}

void BenchStream::OnDone(const grpc::Status& status) {
  result_.status = status;
  result_.whole = BenchNow() - scheduled_;
  on_done_(this);
}

}  // namespace sluice
