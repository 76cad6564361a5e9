#include "server/core/watchdog.h"

#include <algorithm>
#include <utility>

namespace sluice {
namespace {

constexpr absl::Duration kLongestPoll = absl::Milliseconds(50);  // memory can go fast
constexpr absl::Duration kShortestPoll = absl::Milliseconds(1);

}  // namespace

Watchdog::Watchdog(const DeviceThread* device, const Clock* clock, absl::Duration bound,
                   std::function<void(absl::Duration)> on_stuck, std::function<void()> tick)
    : device_(device),
      clock_(clock),
      bound_(bound),
      on_stuck_(std::move(on_stuck)),
      tick_(std::move(tick)),
      thread_([this] { Run(); }) {}

Watchdog::~Watchdog() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    bell_.NotifyOne();
  }
  thread_.join();
}

void Watchdog::Run() {
  const absl::Duration poll = std::clamp(bound_ / 4, kShortestPoll, kLongestPoll);
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (!stop_) bell_.WaitFor(&mutex_, poll);
      if (stop_) return;
    }
    if (tick_) tick_();
    const absl::Duration running = device_->StepRunningFor(clock_->Now());
    if (running > bound_) return on_stuck_(running);
  }
}

}  // namespace sluice
