// The end of a process that drops no stream without a status.
#ifndef SLUICE_SERVER_CORE_DRAIN_H_
#define SLUICE_SERVER_CORE_DRAIN_H_

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"
#include "server/core/admission.h"
#include "server/core/device_thread.h"
#include "server/core/emitter.h"

namespace sluice {

// In this order, each at most once.
enum class DrainState : uint8_t {
  kServing,   // nothing has been asked
  kDraining,  // new requests are UNAVAILABLE; running ones go on to their end
  kFlushing,  // the time is over: the rest is closed with UNAVAILABLE, what waits still written
  kStopped,   // every stream has finished, or its peer could not be made to let go
};

struct DrainOptions {
  // For running requests to end by themselves.
  absl::Duration drain = absl::Seconds(30);
  // For the rest to be written; as long again once their calls are cancelled.
  absl::Duration flush = absl::Seconds(5);
};

class Drain {
 public:
  Drain(Admission* admission, DeviceThread* device, Emitter* emitter, const DrainOptions& options);

  // Goes through the states and returns the streams left unfinished: 0 but for transports that do
  // not complete. Blocks for drain + 2 flush of real time at most. Once, any thread but the
  // device's and the emitter's.
  int64_t Run();
  // Cuts kDraining short (a second SIGTERM). Any thread, any time; async-signal-safe.
  void Hurry() { hurry_.store(true, std::memory_order_relaxed); }

  DrainState state() const { return state_.load(std::memory_order_acquire); }

 private:
  // True once no stream and no permit is left; false after `bound`, or when hurried in kDraining.
  bool WaitForNone(absl::Duration bound) const;

  Admission* const admission_;
  DeviceThread* const device_;
  Emitter* const emitter_;
  const DrainOptions options_;
  std::atomic<DrainState> state_{DrainState::kServing};
  std::atomic<bool> hurry_{false};
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_DRAIN_H_
