// Limits how often one address may fail: each address that failed lately has a token bucket.
#ifndef SLUICE_SERVER_FAILURE_LIMIT_H_
#define SLUICE_SERVER_FAILURE_LIMIT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/core/mutex.h"

namespace sluice {

// Any thread.
class FailureLimit {
 public:
  // Addresses remembered at once; what comes above shares one bucket.
  static constexpr size_t kMaxPeers = 4096;

  // `per_minute` failures at once, and as many again each minute; 0: no bound.
  explicit FailureLimit(int32_t per_minute) : per_minute_(per_minute) {}

  // Time until `peer` may fail again; zero if it may now.
  absl::Duration Wait(absl::string_view peer, absl::Duration now) const;
  void Fail(absl::string_view peer, absl::Duration now);

 private:
  struct Bucket {
    double failures = 0;  // as of `since`; they fade away
    absl::Duration since;
  };

  double FailuresAt(const Bucket& bucket, absl::Duration now) const;

  const int32_t per_minute_;
  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, Bucket> buckets_ SLUICE_GUARDED_BY(mutex_);
  Bucket shared_ SLUICE_GUARDED_BY(mutex_);
  absl::Duration purged_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_SERVER_FAILURE_LIMIT_H_
