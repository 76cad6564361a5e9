// Decides which calls may come in: bounds on open streams and on waiting prompts, of all callers
// together and of each tenant, checked before a request queues.
#ifndef SLUICE_SERVER_CORE_ADMISSION_H_
#define SLUICE_SERVER_CORE_ADMISSION_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/stats.h"
#include "server/core/mutex.h"
#include "server/core/tenant.h"

namespace sluice {

struct AdmissionLimits {
  int64_t max_streams = 4096;           // open at once, whatever they do
  int64_t max_queued_requests = 1024;   // that wait for their first output
  int64_t max_queued_tokens = 4 << 20;  // of their prompts; one prompt alone is always let in
};

class Admission;

// The bound that kept somebody out.
enum class AdmissionRefusal : uint8_t { kStreams, kQueuedRequests, kQueuedTokens, kMemory };
inline constexpr size_t kNumAdmissionRefusals = 4;

// The shares of the bounds that somebody holds now.
struct AdmissionUsage {
  int64_t permits = 0;
  int64_t queued_requests = 0;
  int64_t queued_tokens = 0;
};

// One stream's share of the bounds; given back by the destructor. Movable, used by one thread at a
// time.
class Permit {
 public:
  Permit() = default;  // holds nothing
  Permit(Permit&& other) noexcept { *this = std::move(other); }
  Permit& operator=(Permit&& other) noexcept;
  ~Permit() { Release(); }

  // The request has given its first output: it no longer counts as queued. Later calls do nothing.
  void LeaveQueue();
  void Release();

 private:
  friend class Admission;
  using Usage = std::map<std::string, AdmissionUsage>::iterator;

  Permit(Admission* admission, Usage usage, int64_t prompt_tokens, absl::Duration admitted)
      : admission_(admission),
        usage_(usage),
        prompt_tokens_(prompt_tokens),
        admitted_(admitted),
        queued_(true) {}

  Admission* admission_ = nullptr;
  Usage usage_;  // the tenant's
  int64_t prompt_tokens_ = 0;
  absl::Duration admitted_;
  bool queued_ = false;
};

// Any thread. Outlives its permits.
class Admission {
 public:
  Admission(const AdmissionLimits& limits, const Clock* clock) : limits_(limits), clock_(clock) {}

  // RESOURCE_EXHAUSTED naming the bound that was hit, with *retry_delay when a place is likely to
  // be free, judged by how long requests took of late; UNAVAILABLE after Drain.
  absl::StatusOr<Permit> Admit(int64_t prompt_tokens, const Tenant& tenant = {},
                               absl::Duration* retry_delay = nullptr);
  // While the memory is full, a call is let in only when it is alone. Any thread.
  void SetMemoryFull(bool full) { memory_full_.store(full, std::memory_order_relaxed); }
  // Refuses everything from now on.
  void Drain();

  // Metrics; all return to zero.
  int64_t permits() const { return usage().permits; }
  int64_t queued_requests() const { return usage().queued_requests; }
  int64_t queued_tokens() const { return usage().queued_tokens; }
  // Tenants that hold a permit.
  int64_t active_tenants() const;
  // Since the start, by all bounds of that kind: everybody's and the tenants'.
  uint64_t refused(AdmissionRefusal why) const {
    return refused_[static_cast<size_t>(why)].value();
  }

 private:
  friend class Permit;

  AdmissionUsage usage() const;
  absl::Status MemoryRefusal(absl::Duration* retry_delay) SLUICE_REQUIRES(mutex_);
  absl::Status Refusal(int64_t prompt_tokens, const AdmissionUsage& usage,
                       const AdmissionLimits& limits, const char* whose,
                       absl::Duration* retry_delay) SLUICE_REQUIRES(mutex_);
  absl::Duration RetryDelay(absl::Duration expected) SLUICE_REQUIRES(mutex_);
  void LeaveQueue(Permit::Usage usage, int64_t prompt_tokens, absl::Duration admitted);
  void Release(Permit::Usage usage, absl::Duration admitted);

  const AdmissionLimits limits_;
  const Clock* const clock_;
  std::array<Counter, kNumAdmissionRefusals> refused_;
  std::atomic<bool> memory_full_{false};
  mutable Mutex mutex_;
  bool draining_ SLUICE_GUARDED_BY(mutex_) = false;
  AdmissionUsage all_ SLUICE_GUARDED_BY(mutex_);
  std::map<std::string, AdmissionUsage> tenants_ SLUICE_GUARDED_BY(mutex_);  // that hold a permit
  // Moving means, in seconds.
  double mean_wait_ SLUICE_GUARDED_BY(mutex_) = 0;
  double mean_stay_ SLUICE_GUARDED_BY(mutex_) = 0;
  std::minstd_rand jitter_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_ADMISSION_H_
