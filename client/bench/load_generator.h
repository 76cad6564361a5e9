// Puts a daemon under load, closed-loop or open-loop, and records what its clients see.
#ifndef SLUICE_CLIENT_BENCH_LOAD_GENERATOR_H_
#define SLUICE_CLIENT_BENCH_LOAD_GENERATOR_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "client/bench/arrivals.h"
#include "client/bench/record.h"
#include "client/bench/stream.h"
#include "client/cancellation.h"
#include "client/client.h"
#include "client/session_client.h"

namespace sluice {

struct LoadOptions {
  // Closed loop (arrivals.rate 0): so many streams, each followed by the next as soon as it ends.
  int32_t concurrency = 1;
  // Open loop: requests come when they are due, however many still run.
  ArrivalOptions arrivals = {};
  // The load runs this long before the clock starts. What was due then is not measured.
  absl::Duration warmup = absl::ZeroDuration();
  // Whichever comes first; both count from the end of the warm-up. Streams that run at the end of
  // `duration` are cut off.
  int64_t requests = std::numeric_limits<int64_t>::max();
  absl::Duration duration = absl::InfiniteDuration();
  absl::Duration timeout = absl::InfiniteDuration();  // of one request
  // Above 1: each stream, and each arrival, is a session of so many requests, one after the other.
  // One that does not end well is its session's last.
  int32_t turns = 1;
};

struct LoadResult {
  std::vector<RequestRecord> requests;  // in the order in which they ended, warm-up included
  absl::Duration elapsed;               // after the warm-up, until the last ended or was cut off
  bool gave_up = false;                 // the daemon went away
};

struct LoadProgress {
  absl::Duration elapsed;  // negative in the warm-up
  int64_t done = 0;
  int64_t running = 0;
  int64_t new_tokens = 0;
};

class LoadGenerator {
 public:
  using MakeRequest = std::function<v1::GenerateRequest(int64_t index)>;
  using OnProgress = std::function<void(const LoadProgress&)>;

  // `make_request` is asked for request 0, 1, ... over all runs, on the running thread.
  // `cancellation` may be null.
  LoadGenerator(const Client& client, MakeRequest make_request, Cancellation* cancellation);

  // Blocks until the last stream has ended. on_progress is called every `progress_interval` on this
  // thread.
  LoadResult Run(const LoadOptions& options, absl::Duration progress_interval,
                 const OnProgress& on_progress);

 private:
  struct NextTurn {
    std::string session_id;
    int32_t turn;
  };

  // Request `turn` of a session; without an id, the first of a new one if there are to be sessions.
  void StartStream(const LoadOptions& load, absl::Duration origin, absl::Duration due,
                   std::string session_id = "", int32_t turn = 0);
  void RemoveSessions();
  // Adds the records of the streams that have ended.
  void CollectDone(bool cut_off, LoadResult* result);
  void Record(BenchStream* stream, bool cut_off, LoadResult* result) const;
  void CutOffRunning(LoadResult* result);
  bool stopped() const;
  // Until a stream ends, a cancel, or `until` on BenchNow's clock.
  void WaitForDone(absl::Duration until);

  const std::string address_;
  const std::unique_ptr<v1::InferenceService::Stub> stub_;
  const std::unique_ptr<v1::SessionService::Stub> session_stub_;
  const SessionClient session_client_;
  const MakeRequest make_request_;
  Cancellation* const cancellation_;
  int64_t next_index_ = 0;
  std::atomic<int64_t> tokens_ = 0;    // of this run
  int32_t turns_ = 1;                  // of this run
  std::vector<std::string> sessions_;  // that this run made
  std::vector<NextTurn> next_turns_;   // due now
  absl::flat_hash_map<BenchStream*, std::unique_ptr<BenchStream>> running_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<BenchStream*> done_;  // guarded by mutex_; still in running_
  bool stopped_ = false;            // guarded by mutex_
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_LOAD_GENERATOR_H_
