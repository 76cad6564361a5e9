// What a benchmark found, for people and for programs.
#ifndef SLUICE_CLIENT_BENCH_REPORT_H_
#define SLUICE_CLIENT_BENCH_REPORT_H_

#include <string>

#include "client/bench/load_generator.h"

namespace sluice {

// What was run, in the daemon's and the user's words.
struct BenchSetup {
  std::string address;
  std::string model;
  std::string device;
  std::string load;    // "closed loop, 8 streams"
  std::string prompt;  // "128 random tokens"
  int64_t max_new_tokens = 0;
};

// A table with a line end after each line.
std::string FormatReport(const BenchSetup& setup, const LoadResult& result);
// One line of JSON with the same numbers; latencies in milliseconds.
std::string ReportJson(const BenchSetup& setup, const LoadResult& result);

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_REPORT_H_
