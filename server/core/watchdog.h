// Notices a device that neither answers nor fails: a step that never ends.
#ifndef SLUICE_SERVER_CORE_WATCHDOG_H_
#define SLUICE_SERVER_CORE_WATCHDOG_H_

#include <functional>
#include <thread>

#include "absl/time/time.h"
#include "engine/clock.h"
#include "server/core/device_thread.h"
#include "server/core/mutex.h"

namespace sluice {

class Watchdog {
 public:
  // Calls `on_stuck` once, from its own thread, when the device thread has been in one step for
  // longer than `bound`, with how long. Pointers outlive the object; `on_stuck` may not return.
  // `tick` is called from the same thread, each time that it looks: every 50 ms or more often.
  Watchdog(const DeviceThread* device, const Clock* clock, absl::Duration bound,
           std::function<void(absl::Duration)> on_stuck, std::function<void()> tick = nullptr);
  ~Watchdog();

 private:
  void Run();

  const DeviceThread* const device_;
  const Clock* const clock_;
  const absl::Duration bound_;
  const std::function<void(absl::Duration)> on_stuck_;
  const std::function<void()> tick_;
  Mutex mutex_;
  CondVar bell_;
  bool stop_ SLUICE_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when all else is there
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_WATCHDOG_H_
