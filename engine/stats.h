// The engine's counters. The driving thread writes them, and any thread reads them (a scrape takes
// no lock of the step loop).
#ifndef SLUICE_ENGINE_STATS_H_
#define SLUICE_ENGINE_STATS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace sluice {

class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Gauge {
 public:
  void Set(int64_t value) { value_.store(value, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

// Cumulative buckets are made when scraped.
class Histogram {
 public:
  static constexpr size_t kMaxBounds = 32;

  template <size_t N>
  explicit Histogram(const double (&bounds)[N]) : num_bounds_(N) {
    static_assert(N <= kMaxBounds);
    for (size_t i = 0; i < N; ++i) bounds_[i] = bounds[i];
  }

  // One writer.
  void Observe(double value, uint64_t times = 1) {
    counts_[BucketOf(value)].fetch_add(times, std::memory_order_relaxed);
    sum_.store(sum_.load(std::memory_order_relaxed) + value * static_cast<double>(times),
               std::memory_order_relaxed);
  }
  // Any number of writers, all of which use this.
  void ObserveShared(double value) {
    counts_[BucketOf(value)].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(value, std::memory_order_relaxed);
  }

  size_t num_bounds() const { return num_bounds_; }
  double bound(size_t i) const { return bounds_[i]; }
  // Observations in bucket i alone; i == num_bounds() is the one above all bounds.
  uint64_t count(size_t i) const { return counts_[i].load(std::memory_order_relaxed); }
  bool empty() const {
    for (size_t i = 0; i <= num_bounds_; ++i) {
      if (count(i) > 0) return false;
    }
    return true;
  }
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  size_t BucketOf(double value) const {
    size_t i = 0;
    while (i < num_bounds_ && value > bounds_[i]) ++i;
    return i;
  }

  size_t num_bounds_;
  std::array<double, kMaxBounds> bounds_{};
  std::array<std::atomic<uint64_t>, kMaxBounds + 1> counts_{};
  std::atomic<double> sum_{0.0};
};

// Seconds; below a millisecond too, where a small model's tokens are.
inline constexpr double kLatencyBounds[] = {.0001, .0002, .0005, .001, .002, .005, .01,
                                            .02,   .05,   .1,    .2,   .5,   1,    2,
                                            5,     10,    20,    40,   80,   160,  640};
inline constexpr double kRowBounds[] = {1,   2,   4,   8,    16,   32,   64,
                                        128, 256, 512, 1024, 2048, 4096, 8192};

// Histograms of what requests ask for and get.
inline constexpr double kTokenBounds[] = {1,    2,    5,    10,    20,    50,    100,    200,   500,
                                          1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};
inline constexpr double kSequenceBounds[] = {1, 2, 5, 10, 20};

inline constexpr double kAgeBounds[] = {1,    10,   60,    300,   900,    1800,
                                        3600, 7200, 21600, 86400, 259200, 604800};

// The stage of a request that ended before its time.
enum class Stage : uint8_t { kQueued, kPrefill, kDecode };
inline constexpr size_t kNumStages = 3;
inline constexpr size_t kNumFinishReasons = 6;

struct EngineStats {
  Counter requests;                                   // submitted
  std::array<Counter, kNumFinishReasons> finished;    // sequences, by FinishReason
  std::array<Counter, kNumStages> cancelled;          // requests
  std::array<Counter, kNumStages> deadline_exceeded;  // requests
  Counter failed;                                     // requests closed with any other error
  Counter prompt_tokens;                              // computed
  Counter generated_tokens;
  Counter steps;
  Counter orphan_rows;     // of steps that were formed after their call had ended
  Counter discarded_rows;  // of steps that were in flight when it ended
  Counter held_rows;       // decode rows left out of a step for another tenant's inter_token
  Counter spills;          // states moved to the host to free a slot

  // Sessions.
  Gauge sessions;
  Gauge busy_sessions;  // a call writes to them
  Counter sessions_created;
  Counter sessions_expired;
  Counter sessions_deleted;
  Counter forks;
  Counter commits;
  Counter conflicts;  // calls and changes refused because of another writer, or an old etag
  Counter exports;
  Counter imports;
  Counter room_refusals;  // no place for a state

  // Committed states, by the places that hold them.
  Gauge device_states;
  Gauge host_states;
  Gauge disk_states;
  Gauge host_state_bytes;
  Gauge disk_state_bytes;
  Counter device_restores;  // calls that went on from a state in a slot
  Counter host_restores;    // from host memory
  Counter disk_restores;    // from a file
  Counter slot_evictions;   // committed states that lost their slot; the host still had them
  Counter host_evictions;   // that left host memory; the disk still had them
  Counter store_errors;     // jobs that failed but for a conflict or an unknown name
  Counter quarantined;      // files of sessions that were moved aside
  Counter lost_races;       // another daemon had written the session meanwhile
  Histogram spill_seconds{kLatencyBounds};  // from a slot to the host
  Histogram host_restore_seconds{kLatencyBounds};
  Histogram disk_restore_seconds{kLatencyBounds};  // the file's part
  Histogram session_age_seconds{kAgeBounds};       // at its end

  // The prefix cache.
  Counter prefix_queries;    // prompt tokens of the calls that looked for theirs in it
  Counter prefix_hits;       // of them, tokens it had
  Counter prefix_hit_calls;  // calls that reused any
  Counter prefix_miss_calls;
  Counter prefix_waits;      // calls that waited for another to compute what both begin with
  Counter prefix_evictions;  // states
  Gauge prefix_entries;      // states
  Gauge prefix_bytes;        // of states and tokens

  Gauge waiting;  // requests without a slot
  Gauge running;  // sequences with a slot that may be in a batch
  Gauge paused;   // sequences whose reader is too slow
  // Pages of a model whose states grow.
  Gauge pages_total;
  Gauge pages_used;
  Gauge pages_shared;   // of them, by more than one state
  Gauge pages_spilled;  // that paused calls in host memory will want again
  Gauge slots_used;
  Gauge slots_total;
  Histogram queue_seconds{kLatencyBounds};
  Histogram prefill_seconds{kLatencyBounds};
  Histogram time_to_first_token_seconds{kLatencyBounds};
  Histogram inter_token_seconds{kLatencyBounds};
  Histogram decode_seconds{kLatencyBounds};   // of a sequence, from its first token to its last
  Histogram compute_seconds{kLatencyBounds};  // of a sequence, from its first step to its end
  Histogram prompt_length{kTokenBounds};      // of requests, at submission
  Histogram max_new_tokens{kTokenBounds};     // of generating requests, at submission
  Histogram sequences{kSequenceBounds};       // likewise
  Histogram new_tokens{kTokenBounds};         // of a sequence that ended
  Histogram request_seconds{kLatencyBounds};
  Histogram step_seconds{kLatencyBounds};
  Histogram step_rows{kRowBounds};
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATS_H_
