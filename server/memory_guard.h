// Keeps the process below the memory it may have, as long as callers are what it is spent on: above
// nine tenths of it no call is admitted.
#ifndef SLUICE_SERVER_MEMORY_GUARD_H_
#define SLUICE_SERVER_MEMORY_GUARD_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "engine/clock.h"
#include "server/core/admission.h"

namespace sluice {

// The smallest bound that the process's cgroup and those above it set (version 2 or 1), in bytes;
// 0: none. `root` is where /proc and /sys are, for tests.
int64_t CgroupMemoryLimit(const std::string& root = "");

class MemoryGuard {
 public:
  // `limit` in bytes; 0: none. The others outlive the object.
  MemoryGuard(int64_t limit, Admission* admission, const Clock* clock)
      : limit_(limit), admission_(admission), clock_(clock) {}

  // Compares the resident memory with the limit and tells the admission: above 90 % it is full,
  // below 85 % no more. While it is full, and where it is much, what the allocator keeps goes back
  // to the system: gRPC frees what a flood made it allocate, and without this all of it would stay
  // resident. One thread.
  void Look();
  // The same for a process of that size.
  void Look(int64_t resident_bytes);

 private:
  void ReturnUnused();

  const int64_t limit_;
  Admission* const admission_;
  const Clock* const clock_;
  bool full_ = false;
  absl::Duration next_trim_ = -absl::InfiniteDuration();
  absl::Duration next_return_ = -absl::InfiniteDuration();
};

}  // namespace sluice

#endif  // SLUICE_SERVER_MEMORY_GUARD_H_
