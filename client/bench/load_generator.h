// Puts a daemon under load, closed-loop or open-loop, and measures what its clients see.
#ifndef SLUICE_CLIENT_BENCH_LOAD_GENERATOR_H_
#define SLUICE_CLIENT_BENCH_LOAD_GENERATOR_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "client/bench/latency.h"
#include "client/bench/stream.h"
#include "client/cancellation.h"
#include "client/client.h"

namespace sluice {

struct LoadOptions {
  // Closed loop (rate 0): so many streams, each followed by the next as soon as it ends.
  int32_t concurrency = 1;
  // Open loop: requests per second on average, with exponential gaps, however many still run.
  double rate = 0;
  // Whichever comes first. Streams that run at the end of `duration` are cut off.
  int64_t requests = std::numeric_limits<int64_t>::max();
  absl::Duration duration = absl::InfiniteDuration();
  absl::Duration timeout = absl::InfiniteDuration();  // of one request
  uint64_t seed = 0;                                  // of the open loop's gaps
};

struct LoadResult {
  int64_t ok = 0;
  int64_t failed = 0;
  int64_t cut_off = 0;  // by the end of the duration or by a cancel: neither ok nor failed
  std::map<std::string, int64_t> errors;  // one line -> how many times
  absl::Duration elapsed;                 // until the last stream ended or was cut off
  int64_t prompt_tokens = 0;
  int64_t new_tokens = 0;  // that arrived within `elapsed`
  int64_t messages = 0;    // that held them
  bool gave_up = false;    // the daemon went away
  // Over streams that were not refused: see StreamResult. `whole` is of those that are ok.
  LatencySamples first_token;
  LatencySamples inter_token;
  LatencySamples between_messages;
  LatencySamples whole;
};

struct LoadProgress {
  absl::Duration elapsed;
  int64_t done = 0;
  int64_t running = 0;
  int64_t new_tokens = 0;
};

// The next gap between arrivals of a Poisson process. Moves *random on.
absl::Duration NextArrivalGap(double rate, uint64_t* random);

// splitmix64: the same numbers everywhere.
uint64_t NextRandom(uint64_t* state);

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
  void StartStream(absl::Duration scheduled, const LoadOptions& options);
  // Adds the results of the streams that have ended.
  void CollectDone(bool cut_off, LoadResult* result);
  void Record(const StreamResult& stream, bool cut_off, LoadResult* result) const;
  void CutOffRunning(LoadResult* result);
  bool stopped() const;
  // Until a stream ends, a cancel, or `until` on BenchNow's clock.
  void WaitForDone(absl::Duration until);

  const std::string address_;
  const std::unique_ptr<v1::InferenceService::Stub> stub_;
  const MakeRequest make_request_;
  Cancellation* const cancellation_;
  int64_t next_index_ = 0;
  std::atomic<int64_t> tokens_ = 0;  // of this run
  absl::flat_hash_map<BenchStream*, std::unique_ptr<BenchStream>> running_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<BenchStream*> done_;  // guarded by mutex_; still in running_
  bool stopped_ = false;            // guarded by mutex_
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_LOAD_GENERATOR_H_
