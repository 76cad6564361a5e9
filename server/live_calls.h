// Calls that go on for a while, by whose they are, so that they can be ended when their tenant is
// no longer let in.
#ifndef SLUICE_SERVER_LIVE_CALLS_H_
#define SLUICE_SERVER_LIVE_CALLS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "server/core/mutex.h"
#include "server/core/tenant.h"

namespace sluice {

// Any thread.
class LiveCalls {
 public:
  // Ends a call with a status. It may run after the call's Place is gone, so it holds what it
  // needs; it takes no lock under which a Place is given up.
  using End = std::function<void(absl::Status)>;

  // A call's entry, which goes with the object. The LiveCalls outlive it.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept : calls_(std::exchange(other.calls_, nullptr)), id_(other.id_) {}
    Place& operator=(Place&& other) noexcept {
      std::swap(calls_, other.calls_);
      std::swap(id_, other.id_);
      return *this;
    }
    ~Place() {
      if (calls_ != nullptr) calls_->Remove(id_);
    }

   private:
    friend class LiveCalls;
    Place(LiveCalls* calls, uint64_t id) : calls_(calls), id_(id) {}

    LiveCalls* calls_ = nullptr;  // null: no entry
    uint64_t id_ = 0;
  };

  Place Add(std::shared_ptr<const Tenant> tenant, End end);
  // Ends each call whose tenant `allowed` refuses; how many there were.
  int64_t EndUnless(const std::function<bool(const Tenant&)>& allowed, const absl::Status& status);

 private:
  struct Call {
    std::shared_ptr<const Tenant> tenant;
    End end;
  };

  void Remove(uint64_t id);

  Mutex mutex_;
  uint64_t last_id_ SLUICE_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<uint64_t, Call> calls_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_SERVER_LIVE_CALLS_H_
