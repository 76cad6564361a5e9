#include "server/failure_limit.h"

#include <algorithm>

namespace sluice {
namespace {

constexpr absl::Duration kPurgeInterval = absl::Seconds(1);

}  // namespace

absl::Duration FailureLimit::Wait(absl::string_view peer, absl::Duration now) const {
  if (per_minute_ == 0) return absl::ZeroDuration();
  MutexLock lock(&mutex_);
  const auto it = buckets_.find(peer);
  // A peer that is not remembered is charged to the shared bucket only if there is no room to
  // remember it.
  if (it == buckets_.end() && buckets_.size() < kMaxPeers) return absl::ZeroDuration();
  const double failures = FailuresAt(it == buckets_.end() ? shared_ : it->second, now);
  const double above = failures - (per_minute_ - 1);
  return above > 0 ? absl::Minutes(above / per_minute_) : absl::ZeroDuration();
}

void FailureLimit::Fail(absl::string_view peer, absl::Duration now) {
  if (per_minute_ == 0) return;
  MutexLock lock(&mutex_);
  auto it = buckets_.find(peer);
  if (it == buckets_.end() && buckets_.size() == kMaxPeers && now > purged_ + kPurgeInterval) {
    purged_ = now;
    for (auto old = buckets_.begin(); old != buckets_.end();) {
      const auto here = old++;
      if (FailuresAt(here->second, now) == 0) buckets_.erase(here);
    }
  }
  Bucket* bucket = &shared_;
  if (it != buckets_.end()) {
    bucket = &it->second;
  } else if (buckets_.size() < kMaxPeers) {
    bucket = &buckets_[std::string(peer)];
  }
  bucket->failures = FailuresAt(*bucket, now) + 1;
  bucket->since = now;
}

double FailureLimit::FailuresAt(const Bucket& bucket, absl::Duration now) const {
  const double faded = absl::FDivDuration(now - bucket.since, absl::Minutes(1)) * per_minute_;
  return std::max(0.0, bucket.failures - faded);
}

}  // namespace sluice
