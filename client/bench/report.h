// Reports a benchmark's results, for people and for programs.
#ifndef SLUICE_CLIENT_BENCH_REPORT_H_
#define SLUICE_CLIENT_BENCH_REPORT_H_

#include <map>
#include <string>

#include "absl/time/time.h"
#include "client/bench/summary.h"
#include "nlohmann/json_fwd.hpp"
#include "sluice/v1/model.pb.h"

namespace sluice {

// The setup of a run, in the daemon's and the user's words.
struct BenchSetup {
  std::string address;
  v1::Model model;
  std::string load;      // "closed loop, 8 streams"
  std::string requests;  // "prompts of 128 random tokens, 64 new tokens"
  int64_t max_new_tokens = 0;
  absl::Time started;
  std::string version;                         // of this client
  std::map<std::string, std::string> options;  // flag -> text, those that were given
};

// A table with a line end after each line.
std::string FormatReport(const BenchSetup& setup, const BenchSummary& summary);

// The same numbers, and the run over time; latencies in milliseconds.
nlohmann::json ReportJson(const BenchSetup& setup, const BenchSummary& summary);
// One object for each request that was due in the measured time, in the order in which they ended.
nlohmann::json RequestsJson(const LoadResult& result);
// One line. Invalid UTF-8 in a message is replaced.
std::string Dump(const nlohmann::json& json);

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_REPORT_H_
