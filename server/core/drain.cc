#include "server/core/drain.h"

#include <chrono>
#include <thread>

#include "server/core/steady_clock.h"

namespace sluice {
namespace {

// Nothing else happens in a process that waits here, so polling is good enough.
constexpr std::chrono::milliseconds kPollInterval(2);

}  // namespace

Drain::Drain(Admission* admission, DeviceThread* device, Emitter* emitter,
             const DrainOptions& options)
    : admission_(admission), device_(device), emitter_(emitter), options_(options) {}

int64_t Drain::Run() {
  state_.store(DrainState::kDraining, std::memory_order_release);
  admission_->Drain();
  if (!WaitForNone(options_.drain)) {
    state_.store(DrainState::kFlushing, std::memory_order_release);
    device_->CloseAll();
    if (!WaitForNone(options_.flush)) {
      emitter_->CancelAll();
      WaitForNone(options_.flush);
    }
  }
  state_.store(DrainState::kStopped, std::memory_order_release);
  return emitter_->live_streams();
}

bool Drain::WaitForNone(absl::Duration bound) const {
  const SteadyClock clock;
  const absl::Duration end = clock.Now() + bound;
  while (emitter_->live_streams() > 0 || admission_->permits() > 0) {
    const bool hurried = state() == DrainState::kDraining && hurry_.load(std::memory_order_relaxed);
    if (hurried || clock.Now() >= end) return false;
    std::this_thread::sleep_for(kPollInterval);
  }
  return true;
}

}  // namespace sluice
