#include "server/live_calls.h"

#include <vector>

namespace sluice {

LiveCalls::Place LiveCalls::Add(std::shared_ptr<const Tenant> tenant, End end) {
  MutexLock lock(&mutex_);
  const uint64_t id = ++last_id_;
  calls_.emplace(id, Call{std::move(tenant), std::move(end)});
  return Place(this, id);
}

int64_t LiveCalls::EndUnless(const std::function<bool(const Tenant&)>& allowed,
                             const absl::Status& status) {
  std::vector<End> ends;
  {
    MutexLock lock(&mutex_);
    for (const auto& [id, call] : calls_) {
      if (!allowed(*call.tenant)) ends.push_back(call.end);
    }
  }
  // Each gets a status of its own, because ThreadSanitizer cannot follow one that threads share in
  // Debian's Abseil.
  for (const End& end : ends) end(absl::Status(status.code(), status.message()));
  return static_cast<int64_t>(ends.size());
}

void LiveCalls::Remove(uint64_t id) {
  Call removed;  // destroyed after the lock is given back
  MutexLock lock(&mutex_);
  const auto it = calls_.find(id);
  if (it == calls_.end()) return;
  removed = std::move(it->second);
  calls_.erase(it);
}

}  // namespace sluice
