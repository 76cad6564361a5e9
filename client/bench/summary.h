// The numbers that a run's records come to.
#ifndef SLUICE_CLIENT_BENCH_SUMMARY_H_
#define SLUICE_CLIENT_BENCH_SUMMARY_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/bench/latency.h"
#include "client/bench/load_generator.h"
#include "client/bench/slo.h"

namespace sluice {

// The run cut into slices of equal time.
struct TimelineSlice {
  int64_t new_tokens = 0;      // that came in it
  int64_t completed = 0;       // requests that ended well in it
  double running = 0;          // requests that were due and had not ended, on average
  LatencySamples first_token;  // of requests that were due in it
  LatencySamples inter_token;  // of tokens that came in it
};

struct BenchSummary {
  // Counts of requests that were due in the measured time.
  int64_t ok = 0;
  int64_t rejected = 0;
  int64_t failed = 0;
  int64_t cut_off = 0;
  int64_t cut_off_waiting = 0;  // of those, without a first token: the percentiles miss them
  absl::Duration longest_wait;  // of those
  std::map<absl::StatusCode, int64_t> codes;  // of rejected and failed ones
  std::map<std::pair<absl::StatusCode, std::string>, int64_t> errors;

  // Totals of the measured time, whenever their requests were due.
  absl::Duration elapsed;
  int64_t completed = 0;      // requests that ended well
  int64_t prompt_tokens = 0;  // of requests whose first token came
  int64_t reused_tokens = 0;  // of requests that ended well
  int64_t new_tokens = 0;
  int64_t messages = 0;  // that held them
  double mean_running = 0;
  int64_t most_running = 0;
  bool gave_up = false;

  // Latencies of requests that were due in the measured time and whose tokens came in it.
  // inter_token has one value per token after the first message: the gap before a message divided
  // among its tokens. between_messages has those gaps. whole counts only requests that are ok. late
  // is how long after its time this client sent a request.
  LatencySamples first_token;
  LatencySamples first_token_later;  // of those, turns of a session after its first
  LatencySamples inter_token;
  LatencySamples between_messages;
  LatencySamples whole;
  LatencySamples late;

  SloTargets targets;
  int64_t slo_met = 0;
  int64_t slo_judged = 0;
  int64_t slo_met_tokens = 0;  // new tokens of the requests that met it

  absl::Duration slice;
  std::vector<TimelineSlice> timeline;

  // `count` over the measured time; 0 when there was none.
  double PerSecond(int64_t count) const;
};

BenchSummary Summarize(const LoadResult& result, const SloTargets& targets);

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_SUMMARY_H_
