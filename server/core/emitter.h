// The thread that moves events from streams into their transports, and looks for stalled readers.
#ifndef SLUICE_SERVER_CORE_EMITTER_H_
#define SLUICE_SERVER_CORE_EMITTER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/stats.h"
#include "server/core/mutex.h"

namespace sluice {

class Stream;

struct StreamLimits {
  // Events that wait in one stream; two steps' worth if a request of many sequences needs more.
  int32_t ring_events = 256;
  // The same in bytes, log-probabilities above all. What one step pushes can go over it.
  int64_t ring_bytes = 256 << 10;
  // For one write to complete; noticed up to an eighth later.
  absl::Duration write_stall = absl::Seconds(10);
};

struct EmitterStats {
  Counter writes;
  Counter wake_ups;                         // of the emitter's thread
  Histogram write_seconds{kLatencyBounds};  // of a write, until the transport has taken it; shared
  Counter slow_readers;                     // streams cancelled because a write stalled
  std::atomic<int64_t> ring_bytes{0};       // waiting in all streams, the events' own size included
};

// Outlives every reaction of every transport, and the device thread.
class Emitter {
 public:
  Emitter(const Clock* clock, const StreamLimits& limits);  // starts the thread
  ~Emitter() { Stop(); }

  // Wakes the thread if a stream has something for it. Any thread; the device thread calls it once
  // a step.
  void Ring();
  // Cancels the call of every stream not yet finished, as a client would: what is left at the end
  // of a drain. Any thread.
  void CancelAll();
  // Does what has been rung for and ends the thread: no transport is called afterwards. One thread,
  // not its own.
  void Stop();

  // Streams that were created and have not finished. Any thread.
  int64_t live_streams() const;
  const EmitterStats& stats() const { return stats_; }
  const StreamLimits& limits() const { return limits_; }

 private:
  friend class Stream;

  absl::Duration Now() const { return clock_->Now(); }
  void Register(std::shared_ptr<Stream> stream);
  void AddRingBytes(int64_t bytes) {
    stats_.ring_bytes.fetch_add(bytes, std::memory_order_relaxed);
  }
  // Has the thread look at the stream, at the next Ring.
  void Add(std::shared_ptr<Stream> stream);

  void Run();
  void Advance(std::vector<std::shared_ptr<Stream>>* streams);
  std::vector<std::shared_ptr<Stream>> LiveStreams() const;

  const Clock* const clock_;
  const StreamLimits limits_;
  EmitterStats stats_;

  mutable Mutex mutex_;
  CondVar bell_;
  std::vector<std::shared_ptr<Stream>> news_ SLUICE_GUARDED_BY(mutex_);
  absl::flat_hash_set<std::shared_ptr<Stream>> live_ SLUICE_GUARDED_BY(mutex_);
  bool sleeping_ SLUICE_GUARDED_BY(mutex_) = false;
  bool rung_ SLUICE_GUARDED_BY(mutex_) = false;
  bool cancel_all_ SLUICE_GUARDED_BY(mutex_) = false;
  bool stop_ SLUICE_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last: starts when all else is there
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_EMITTER_H_
