#include "server/core/admission.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr double kMeanWeight = 0.1;  // of the newest in a moving mean
constexpr absl::Duration kShortestRetry = absl::Milliseconds(50);
constexpr absl::Duration kLongestRetry = absl::Seconds(5);

void AddToMean(absl::Duration value, double* mean) {
  *mean += kMeanWeight * (absl::ToDoubleSeconds(value) - *mean);
}

void Take(int64_t prompt_tokens, AdmissionUsage* usage) {
  ++usage->permits;
  ++usage->queued_requests;
  usage->queued_tokens += prompt_tokens;
}

}  // namespace

Permit& Permit::operator=(Permit&& other) noexcept {
  if (this == &other) return *this;
  Release();
  admission_ = std::exchange(other.admission_, nullptr);
  usage_ = other.usage_;
  prompt_tokens_ = other.prompt_tokens_;
  admitted_ = other.admitted_;
  queued_ = std::exchange(other.queued_, false);
  return *this;
}

void Permit::LeaveQueue() {
  if (std::exchange(queued_, false)) admission_->LeaveQueue(usage_, prompt_tokens_, admitted_);
}

void Permit::Release() {
  if (admission_ == nullptr) return;
  LeaveQueue();
  std::exchange(admission_, nullptr)->Release(usage_, admitted_);
}

absl::StatusOr<Permit> Admission::Admit(int64_t prompt_tokens, const Tenant& tenant,
                                        absl::Duration* retry_delay) {
  MutexLock lock(&mutex_);
  if (draining_) return absl::UnavailableError("the server is shutting down");
  const auto found = tenants_.find(tenant.name);
  const AdmissionUsage mine = found == tenants_.end() ? AdmissionUsage() : found->second;
  const AdmissionLimits of_tenant = {tenant.limits.max_streams, tenant.limits.max_queued_requests,
                                     tenant.limits.max_queued_tokens};
  absl::Status refusal = MemoryRefusal(retry_delay);
  if (refusal.ok()) refusal = Refusal(prompt_tokens, mine, of_tenant, "of your ", retry_delay);
  if (refusal.ok()) refusal = Refusal(prompt_tokens, all_, limits_, "", retry_delay);
  if (!refusal.ok()) return refusal;
  const Permit::Usage usage = tenants_.emplace(tenant.name, AdmissionUsage()).first;
  Take(prompt_tokens, &all_);
  Take(prompt_tokens, &usage->second);
  return Permit(this, usage, prompt_tokens, clock_->Now());
}

absl::Status Admission::MemoryRefusal(absl::Duration* retry_delay) {
  if (!memory_full_.load(std::memory_order_relaxed) || all_.permits == 0) return absl::OkStatus();
  refused_[static_cast<size_t>(AdmissionRefusal::kMemory)].Add();
  if (retry_delay != nullptr) *retry_delay = RetryDelay(absl::Seconds(mean_stay_));
  return absl::ResourceExhaustedError("the daemon has nearly all the memory it may have");
}

absl::Status Admission::Refusal(int64_t prompt_tokens, const AdmissionUsage& usage,
                                const AdmissionLimits& limits, const char* whose,
                                absl::Duration* retry_delay) {
  std::string message;
  double expected = mean_wait_;
  AdmissionRefusal why = AdmissionRefusal::kStreams;
  if (usage.permits >= limits.max_streams) {
    message =
        absl::StrCat("too many ", whose, "streams are open, the limit is ", limits.max_streams);
    expected = mean_stay_;
  } else if (usage.queued_requests >= limits.max_queued_requests) {
    why = AdmissionRefusal::kQueuedRequests;
    message = absl::StrCat("too many ", whose, "requests are queued, the limit is ",
                           limits.max_queued_requests);
  } else if (usage.queued_requests > 0 &&
             prompt_tokens > limits.max_queued_tokens - usage.queued_tokens) {
    why = AdmissionRefusal::kQueuedTokens;
    message =
        absl::StrCat("too many ", whose, "prompt tokens are queued: ", usage.queued_tokens, ", ",
                     prompt_tokens, " more would exceed the limit of ", limits.max_queued_tokens);
  } else {
    return absl::OkStatus();
  }
  refused_[static_cast<size_t>(why)].Add();
  if (retry_delay != nullptr) *retry_delay = RetryDelay(absl::Seconds(expected));
  return absl::ResourceExhaustedError(message);
}

// The delay is between half and one and a half of the expected time, so that calls that were
// refused together do not come back together.
absl::Duration Admission::RetryDelay(absl::Duration expected) {
  const absl::Duration bounded = std::clamp(expected, kShortestRetry, kLongestRetry);
  return bounded * std::uniform_real_distribution<double>(0.5, 1.5)(jitter_);
}

void Admission::Drain() {
  MutexLock lock(&mutex_);
  draining_ = true;
}

AdmissionUsage Admission::usage() const {
  MutexLock lock(&mutex_);
  return all_;
}

int64_t Admission::active_tenants() const {
  MutexLock lock(&mutex_);
  return static_cast<int64_t>(tenants_.size());
}

void Admission::LeaveQueue(Permit::Usage usage, int64_t prompt_tokens, absl::Duration admitted) {
  MutexLock lock(&mutex_);
  for (AdmissionUsage* one : {&all_, &usage->second}) {
    --one->queued_requests;
    one->queued_tokens -= prompt_tokens;
  }
  AddToMean(clock_->Now() - admitted, &mean_wait_);
}

void Admission::Release(Permit::Usage usage, absl::Duration admitted) {
  MutexLock lock(&mutex_);
  --all_.permits;
  if (--usage->second.permits == 0) tenants_.erase(usage);
  AddToMean(clock_->Now() - admitted, &mean_stay_);
}

}  // namespace sluice
