// The one thread that drives an engine: takes requests, cancels and what is asked of its sessions
// from others, steps, or sleeps. What sessions need of the disk goes to the store thread and back.
#ifndef SLUICE_SERVER_CORE_DEVICE_THREAD_H_
#define SLUICE_SERVER_CORE_DEVICE_THREAD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "engine/clock.h"
#include "engine/engine.h"
#include "server/core/emitter.h"
#include "server/core/mutex.h"
#include "server/core/store_thread.h"
#include "server/core/stream.h"

namespace sluice {

class DeviceThread {
 public:
  // Starts the thread. From here to Stop nobody else calls the engine, but for stats(). Pointers
  // outlive the object. `store` may be null when the engine has no store.
  DeviceThread(Engine* engine, const Clock* clock, Emitter* emitter, StoreThread* store = nullptr);
  ~DeviceThread() { Stop(); }

  // Hands a validated request over; its stream gets exactly one Close. Never waits for the device.
  // A client that left before, or leaves before the request was looked at, costs the engine
  // nothing. Any thread.
  void Submit(Request request, std::shared_ptr<Stream> stream);
  // Has `command` run on the thread, also while draining: sessions answer until Stop. False, and
  // nothing happens, after it. Any thread.
  [[nodiscard]] bool Post(std::function<void(Sessions&)> command);
  // Has the thread look at the engine: a full ring has room again. Any thread.
  void Wake();
  // Closes every live request with UNAVAILABLE, and every later one when it comes. Any thread.
  void CloseAll();
  // The work that a stop could not do.
  struct Rest {
    int64_t unwritten_sessions = 0;  // whose last commit is not on disk
    // The store thread does not come back from the disk: to join it would be to wait for ever.
    bool store_hangs = false;
  };
  // CloseAll, waits for the steps in flight and, no longer than `bound`, for what sessions have
  // still to write to the disk, and ends the thread. Whoever waits for the disk then is told
  // UNAVAILABLE. Called again, says the same. One thread, not its own.
  Rest Stop(absl::Duration bound = absl::InfiniteDuration());
  // Ends Stop's wait for the disk. Any thread, any time.
  void HurryStop();

  // Requests that were submitted and not yet closed. Any thread.
  int64_t live_requests() const { return live_requests_.load(std::memory_order_relaxed); }
  // Time since the current step began; zero between steps. Any thread.
  absl::Duration StepRunningFor(absl::Duration now) const;
  // OK until the device fails; then its error for good. Any thread.
  absl::Status device_status() const;
  // Called once, from the device thread (or here, if the device has failed before), with no lock
  // held.
  void set_on_device_fault(std::function<void(absl::Status)> callback);

 private:
  friend class Stream;

  static constexpr int64_t kNoStep = -1;

  struct Submission {
    Request request;
    std::shared_ptr<Stream> stream;
  };
  struct Cancellation {
    std::shared_ptr<Stream> stream;
    absl::Status status;
  };

  // Cancels a stream that is bound to this thread and not closed. The stream calls it under its own
  // lock.
  void Cancel(std::shared_ptr<Stream> stream, absl::Status status);
  // A bound stream was closed. `id` is 0 if the engine never had its request; else on the device
  // thread.
  void OnClosed(uint64_t id);

  void Run();
  // Does what others asked for since the last call. False: stop.
  bool DoCommands();
  bool StepEngine();
  void Start(Submission* submission);
  void CloseLive();
  // Gives the store thread what the sessions want of it. What it gives back comes with DoCommands.
  void HandOutJobs();
  void Flush();
  // Time for which the disk may still be waited for.
  absl::Duration FlushTimeLeft() const;
  void LatchFault();
  void Sleep(absl::Duration until);
  void RingBell() SLUICE_REQUIRES(mutex_);

  Engine* const engine_;
  const Clock* const clock_;
  Emitter* const emitter_;
  StoreThread* const store_;
  std::atomic<int64_t> live_requests_{0};
  std::atomic<int64_t> step_started_ns_{kNoStep};

  // Used by the device thread only.
  absl::flat_hash_set<uint64_t> live_ids_;
  std::vector<Submission> taken_submissions_;
  std::vector<Cancellation> taken_cancellations_;
  std::vector<std::function<void(Sessions&)>> taken_commands_;
  std::vector<std::unique_ptr<StoreJob>> taken_jobs_;
  bool fault_latched_ = false;
  Rest rest_;  // of whoever has joined it, afterwards

  mutable Mutex mutex_;
  CondVar bell_;
  std::vector<Submission> submissions_ SLUICE_GUARDED_BY(mutex_);
  std::vector<Cancellation> cancellations_ SLUICE_GUARDED_BY(mutex_);
  std::vector<std::function<void(Sessions&)>> commands_ SLUICE_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<StoreJob>> done_jobs_ SLUICE_GUARDED_BY(mutex_);
  bool refusing_ SLUICE_GUARDED_BY(mutex_) = false;  // since CloseAll
  bool rung_ SLUICE_GUARDED_BY(mutex_) = false;
  bool sleeping_ SLUICE_GUARDED_BY(mutex_) = false;
  bool stop_ SLUICE_GUARDED_BY(mutex_) = false;
  absl::Duration flush_until_ SLUICE_GUARDED_BY(mutex_);  // of stop_
  bool hurry_ SLUICE_GUARDED_BY(mutex_) = false;
  absl::Status device_status_ SLUICE_GUARDED_BY(mutex_);
  std::function<void(absl::Status)> on_device_fault_ SLUICE_GUARDED_BY(mutex_);

  std::thread thread_;  // last: starts when all else is there
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_DEVICE_THREAD_H_
