// sluice bench.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/load_generator.h"
#include "client/bench/report.h"
#include "client/cli/command.h"
#include "client/cli/text.h"

namespace sluice {
namespace {

constexpr int32_t kMaxConcurrency = 100000;
constexpr int64_t kMaxPromptTokens = 1 << 20;
constexpr int64_t kDefaultWarmup = 4;
constexpr absl::Duration kDefaultDuration = absl::Seconds(10);

struct BenchOptions {
  LoadOptions load;
  std::string model;
  std::string prompt;  // empty: random tokens
  int64_t prompt_tokens = 128;
  int32_t max_new_tokens = 128;
  std::optional<float> temperature;
  int64_t warmup = -1;  // negative: the default
  uint64_t seed = 1;
  bool json = false;
};

void AddBenchFlags(BenchOptions* options, FlagSet* flags) {
  flags->Section("Load");
  flags->Add({"concurrency", "N", "Closed loop: N streams at any time. Default: 1.",
              ToInt32([options](int32_t value) { options->load.concurrency = value; })});
  flags->Add({"rate", "R",
              "Open loop instead: R requests a second on average, as a Poisson process.",
              ToDouble([options](double value) { options->load.rate = value; })});
  flags->Add({"requests", "N", "Ends after N requests.",
              ToInt64([options](int64_t value) { options->load.requests = value; })});
  flags->Add({"duration", "DURATION",
              "Ends after this long, cutting off what runs. Default: 10s, or none with --requests.",
              ToDuration([options](absl::Duration value) { options->load.duration = value; })});
  flags->Add({"warmup", "N", "Requests before the clock starts. Default: --concurrency, at most 4.",
              ToInt64([options](int64_t value) { options->warmup = value; })});
  flags->Section("Requests");
  flags->Add({"prompt-tokens", "N", "Tokens of each prompt, drawn at random. Default: 128.",
              ToInt64([options](int64_t value) { options->prompt_tokens = value; })});
  flags->Add({"prompt", "TEXT", "This prompt instead.",
              ToString([options](std::string text) { options->prompt = std::move(text); })});
  flags->Add({"max-new-tokens", "N",
              "Tokens that each request generates; EOS does not end it. Default: 128.",
              ToInt32([options](int32_t value) { options->max_new_tokens = value; })});
  flags->Add({"temperature", "X", "Of the sampling; 0 is greedy. Default: 1.",
              ToFloat([options](float value) { options->temperature = value; })});
  flags->Add({"seed", "N", "Of prompts, sampling and arrivals. Default: 1.",
              ToUint64([options](uint64_t value) { options->seed = value; })});
  flags->Add({"model", "NAME", "Refuses to run on another model than this.",
              ToString([options](std::string text) { options->model = std::move(text); })});
  flags->Section("Output");
  flags->Add({"json", "", "The report as one JSON object.",
              ToBool([options](bool value) { options->json = value; })});
}

std::string CheckOptions(const BenchOptions& options) {
  const LoadOptions& load = options.load;
  if (load.concurrency < 1 || load.concurrency > kMaxConcurrency) {
    return absl::StrCat("--concurrency is ", load.concurrency, ", must be in [1, ", kMaxConcurrency,
                        "]");
  }
  if (load.rate < 0 || load.rate > 1e6) return "--rate must be above 0 and at most 1000000";
  if (load.requests < 1) return "--requests must be at least 1";
  if (options.prompt_tokens < 1 || options.prompt_tokens > kMaxPromptTokens) {
    return absl::StrCat("--prompt-tokens is ", options.prompt_tokens, ", must be in [1, ",
                        kMaxPromptTokens, "]");
  }
  if (ValidUtf8Prefix(options.prompt) < options.prompt.size()) return "--prompt is not UTF-8";
  return "";
}

v1::GenerateRequest MakeRequest(const BenchOptions& options, int32_t vocab_size, int64_t index) {
  v1::GenerateRequest request;
  request.set_model(options.model);
  uint64_t random = options.seed ^ (static_cast<uint64_t>(index) << 32);
  if (!options.prompt.empty()) {
    request.set_text(options.prompt);
  } else {
    auto* ids = request.mutable_tokens()->mutable_ids();
    ids->Reserve(static_cast<int>(options.prompt_tokens));
    for (int64_t i = 0; i < options.prompt_tokens; ++i) {
      ids->Add(static_cast<int32_t>(NextRandom(&random) % static_cast<uint64_t>(vocab_size)));
    }
  }
  request.mutable_sampling()->set_seed(NextRandom(&random));
  if (options.temperature.has_value()) {
    request.mutable_sampling()->set_temperature(*options.temperature);
  }
  request.mutable_stop()->set_max_new_tokens(options.max_new_tokens);
  request.mutable_stop()->set_ignore_eos(true);
  request.mutable_output()->set_token_ids(true);
  return request;
}

BenchSetup Describe(const BenchOptions& options, const v1::Model& model,
                    const std::string& address) {
  BenchSetup setup;
  setup.address = address;
  setup.model = model.name();
  setup.device = model.device();
  setup.load = options.load.rate > 0
                   ? absl::StrFormat("open loop, %g requests a second", options.load.rate)
                   : absl::StrCat("closed loop, ", options.load.concurrency,
                                  options.load.concurrency == 1 ? " stream" : " streams");
  setup.prompt =
      options.prompt.empty()
          ? absl::StrCat("prompts of ", WithCommas(options.prompt_tokens), " random tokens")
          : "one prompt for all";
  setup.max_new_tokens = options.max_new_tokens;
  return setup;
}

// A line on stderr that a terminal overwrites.
class ProgressLine {
 public:
  explicit ProgressLine(const Io& io) : io_(io) {}
  ~ProgressLine() {
    if (io_.err_is_terminal) io_.err << "\r\033[K" << std::flush;
  }
  absl::Duration interval() const {
    return io_.err_is_terminal ? absl::Milliseconds(500) : absl::Seconds(5);
  }
  void Print(absl::string_view phase, const LoadProgress& now) {
    const double seconds = absl::ToDoubleSeconds(now.elapsed - last_.elapsed);
    const double rate = static_cast<double>(now.new_tokens - last_.new_tokens) / seconds;
    last_ = now;
    io_.err << (io_.err_is_terminal ? "\r\033[K" : "")
            << absl::StrFormat("%s %.0f s: %s done, %s running, %s tok/s", phase,
                               absl::ToDoubleSeconds(now.elapsed), WithCommas(now.done),
                               WithCommas(now.running), WithCommas(static_cast<int64_t>(rate)))
            << (io_.err_is_terminal ? "" : "\n") << std::flush;
  }

 private:
  const Io& io_;
  LoadProgress last_;
};

// Runs a load under a progress line of its own.
LoadResult RunPhase(const char* phase, const LoadOptions& load, LoadGenerator* generator,
                    const Io& io) {
  ProgressLine line(io);
  return generator->Run(load, line.interval(),
                        [&](const LoadProgress& progress) { line.Print(phase, progress); });
}

int Run(const Command& command, Invocation* call) {
  BenchOptions options;
  FlagSet flags;
  AddBenchFlags(&options, &flags);
  if (const std::optional<int> exit_code = ParseCommandLine(command, &flags, call))
    return *exit_code;
  const Io& io = call->io;
  if (!call->args.empty()) return UsageError(command, io, "takes no arguments (--prompt=TEXT?)");
  if (const std::string wrong = CheckOptions(options); !wrong.empty()) {
    return UsageError(command, io, wrong);
  }
  const bool endless = options.load.requests == LoadOptions().requests &&
                       options.load.duration == absl::InfiniteDuration();
  if (endless) options.load.duration = kDefaultDuration;
  options.load.timeout = call->connection.timeout;
  options.load.seed = options.seed;

  const Client client = call->MakeClient();
  v1::GetModelRequest get_model;
  get_model.set_model(options.model);
  const absl::StatusOr<v1::Model> model = client.GetModel(get_model, call->Call());
  if (!model.ok()) return CallFailed(io, model.status());
  const int32_t vocab_size = std::max(model->vocab_size(), 1);

  LoadGenerator generator(
      client, [&](int64_t index) { return MakeRequest(options, vocab_size, index); },
      io.cancellation);
  LoadOptions warmup = options.load;
  warmup.rate = 0;
  warmup.duration = absl::InfiniteDuration();
  warmup.requests = options.warmup >= 0
                        ? options.warmup
                        : std::min<int64_t>(options.load.concurrency, kDefaultWarmup);
  const LoadResult warm = RunPhase("warm-up", warmup, &generator, io);
  if (warm.failed > 0) {
    io.err << "sluice: warm-up: " << warm.errors.begin()->first << "\n";
    return kExitFailed;
  }
  const LoadResult result = RunPhase("bench", options.load, &generator, io);
  const BenchSetup setup = Describe(options, *model, client.address());
  io.out << (options.json ? absl::StrCat(ReportJson(setup, result), "\n")
                          : FormatReport(setup, result));
  return result.failed > 0 ? kExitFailed : kExitOk;
}

}  // namespace

const Command kBenchCommand = {
    "bench",
    "load on the daemon: throughput and latencies",
    "[FLAGS]",
    "Runs Generate calls and prints what clients see. first token: from the moment a request was\n"
    "due (in an open loop that may be before it could be sent) to its first tokens. inter-token:\n"
    "one value per token after that; the daemon merges the tokens of a slow reader into one\n"
    "message, and the gap before a message is then divided among its tokens. between messages:\n"
    "those gaps as they were, so a stall shows there. No thread per stream. Progress is on stderr.",
    "  sluice bench --concurrency=16 --requests=200\n"
    "  sluice bench --concurrency=256 --duration=30s --prompt-tokens=1024 --max-new-tokens=64\n"
    "  sluice bench --rate=20 --duration=1m --json > report.json",
    Run};

}  // namespace sluice
