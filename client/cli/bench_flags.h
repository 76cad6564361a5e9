// The flags of `sluice bench`.
#ifndef SLUICE_CLIENT_CLI_BENCH_FLAGS_H_
#define SLUICE_CLIENT_CLI_BENCH_FLAGS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/bench/lengths.h"
#include "client/bench/load_generator.h"
#include "client/bench/shapes.h"
#include "client/bench/slo.h"
#include "client/cli/flags.h"
#include "sluice/v1/generate.pb.h"

namespace sluice {

struct BenchOptions {
  LoadOptions load;
  std::string model;
  std::string prompt;  // empty: random tokens
  Lengths prompt_tokens = Lengths::Fixed(128);
  Lengths new_tokens = Lengths::Fixed(128);
  std::string shapes_file;
  std::vector<RequestShape> shapes;  // of that file; empty without one
  std::optional<float> temperature;
  bool bypass_prefix_cache = false;
  std::optional<int64_t> warmup_requests;
  uint64_t seed = 1;
  std::optional<uint64_t> prompt_seed;  // of the prompts' tokens; the command draws a fresh one
  SloTargets targets;
  bool json = false;      // on standard output, instead of the table
  std::string json_file;  // empty: none
  std::string html_file;  // empty: none
  bool compare = false;
};

void AddBenchFlags(BenchOptions* options, FlagSet* flags);

// Once the flags are parsed: checks them, reads the shapes, fills what follows from others. An
// error is one line.
absl::Status CompleteBenchOptions(BenchOptions* options);

// Request `index` of the load; the same for the same options.
v1::GenerateRequest MakeBenchRequest(const BenchOptions& options, int32_t vocab_size,
                                     int64_t index);

// "closed loop, 8 streams", and "prompts of 128 tokens, 64 new tokens".
std::string DescribeLoad(const BenchOptions& options);
std::string DescribeRequests(const BenchOptions& options);
// The most that one request may ask for.
int64_t MaxNewTokens(const BenchOptions& options);
// Flag -> value, for the report.
std::map<std::string, std::string> OptionTexts(const BenchOptions& options);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_BENCH_FLAGS_H_
