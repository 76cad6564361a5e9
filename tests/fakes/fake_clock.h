// A clock that stands still until told otherwise.
#ifndef SLUICE_TESTS_FAKES_FAKE_CLOCK_H_
#define SLUICE_TESTS_FAKES_FAKE_CLOCK_H_

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"
#include "engine/clock.h"

namespace sluice {

class FakeClock : public Clock {
 public:
  absl::Duration Now() const override { return absl::Nanoseconds(now_ns_.load()); }
  absl::Time WallNow() const override {
    return absl::UnixEpoch() + Now() + absl::Nanoseconds(wall_offset_ns_.load());
  }
  FakeClock() = default;
  // Starts at the time of another clock.
  FakeClock(const FakeClock& other)
      : now_ns_(other.now_ns_.load()), wall_offset_ns_(other.wall_offset_ns_.load()) {}
  void Advance(absl::Duration by) { now_ns_.fetch_add(absl::ToInt64Nanoseconds(by)); }
  // The time of day alone, as when somebody sets it.
  void JumpWall(absl::Duration by) { wall_offset_ns_.fetch_add(absl::ToInt64Nanoseconds(by)); }

 private:
  std::atomic<int64_t> now_ns_{0};
  std::atomic<int64_t> wall_offset_ns_{int64_t{1700000000} * 1000000000};
};

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_FAKE_CLOCK_H_
