// sluice bench.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/bench/compare.h"
#include "client/bench/html_report.h"
#include "client/bench/load_generator.h"
#include "client/bench/report.h"
#include "client/bench/summary.h"
#include "client/cli/bench_flags.h"
#include "client/cli/command.h"
#include "client/cli/text.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

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
    const absl::Duration since = now.elapsed - last_.value_or(LoadProgress()).elapsed;
    const int64_t tokens = now.new_tokens - last_.value_or(LoadProgress()).new_tokens;
    last_ = now;
    const double rate = static_cast<double>(tokens) / absl::ToDoubleSeconds(since);
    io_.err << (io_.err_is_terminal ? "\r\033[K" : "")
            << absl::StrFormat("%s %.0f s: %s done, %s running, %s tok/s",
                               now.elapsed < absl::ZeroDuration() ? "warm-up" : phase,
                               absl::ToDoubleSeconds(now.elapsed), WithCommas(now.done),
                               WithCommas(now.running), WithCommas(static_cast<int64_t>(rate)))
            << (io_.err_is_terminal ? "" : "\n") << std::flush;
  }

 private:
  const Io& io_;
  std::optional<LoadProgress> last_;
};

// Runs a load under a progress line of its own.
LoadResult RunPhase(const char* phase, const LoadOptions& load, LoadGenerator* generator,
                    const Io& io) {
  ProgressLine line(io);
  return generator->Run(load, line.interval(),
                        [&](const LoadProgress& progress) { line.Print(phase, progress); });
}

// So many requests in a closed loop. Whether the load can follow.
bool WarmUp(const BenchOptions& options, LoadGenerator* generator, const Io& io) {
  LoadOptions warmup = options.load;
  warmup.arrivals.rate = 0;
  warmup.warmup = absl::ZeroDuration();
  warmup.duration = absl::InfiniteDuration();
  warmup.requests = *options.warmup_requests;
  const BenchSummary summary = Summarize(RunPhase("warm-up", warmup, generator, io), {});
  if (io.cancellation != nullptr && io.cancellation->cancelled()) {
    io.err << "sluice: interrupted in the warm-up\n";
    return false;
  }
  if (summary.errors.empty()) return true;
  const auto& [code, message] = summary.errors.begin()->first;
  io.err << "sluice: warm-up: " << message << " (" << absl::StatusCodeToString(code) << ")\n";
  return false;
}

// Before the load is made: a report must not be lost for want of a place. An existing file stays.
absl::Status CheckWritable(const std::string& file) {
  if (file.empty() || std::ofstream(file, std::ios::app)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", std::strerror(errno)));
}

bool WriteFile(const std::string& file, absl::string_view text, const Io& io) {
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << text << std::flush;
  if (!out) io.err << "sluice: cannot write " << file << "\n";
  return out.good();
}

bool WriteReports(const BenchOptions& options, const BenchSetup& setup, const LoadResult& result,
                  const BenchSummary& summary, const Io& io) {
  nlohmann::json report = ReportJson(setup, summary);
  io.out << (options.json ? absl::StrCat(Dump(report), "\n") : FormatReport(setup, summary));
  if (options.json_file.empty() && options.html_file.empty()) return true;
  report["requests"] = RequestsJson(result);
  bool written = true;
  if (!options.json_file.empty()) {
    written = WriteFile(options.json_file, absl::StrCat(Dump(report), "\n"), io);
  }
  if (!options.html_file.empty()) {
    written &= WriteFile(options.html_file, HtmlReport({std::move(report)}, nullptr), io);
  }
  return written;
}

// Reads the reports of one side: files with commas between them.
absl::StatusOr<std::vector<nlohmann::json>> ReadSide(absl::string_view files) {
  std::vector<nlohmann::json> reports;
  for (absl::string_view file : absl::StrSplit(files, ',', absl::SkipEmpty())) {
    absl::StatusOr<nlohmann::json> report = ReadReport(std::string(file));
    if (!report.ok()) return report.status();
    reports.push_back(*std::move(report));
  }
  if (reports.empty()) return absl::InvalidArgumentError("--compare takes files of --json=FILE");
  return reports;
}

int CompareRuns(const Command& command, const BenchOptions& options, const Invocation& call) {
  const Io& io = call.io;
  if (call.args.size() != 2) {
    return UsageError(command, io,
                      "--compare takes two files of --json=FILE, or two lists of them with commas");
  }
  absl::StatusOr<std::vector<nlohmann::json>> a = ReadSide(call.args[0]);
  if (!a.ok()) return UsageError(command, io, a.status().message());
  absl::StatusOr<std::vector<nlohmann::json>> b = ReadSide(call.args[1]);
  if (!b.ok()) return UsageError(command, io, b.status().message());
  const absl::Status comparable = CheckComparable(*a, *b);
  if (!comparable.ok()) return UsageError(command, io, comparable.message());
  const std::vector<ComparedFigure> figures = Compare(*a, *b);
  const nlohmann::json comparison = ComparisonJson(figures, a->size() + b->size() > 2);
  const std::string json = absl::StrCat(Dump(comparison), "\n");
  io.out << (options.json ? json : FormatComparison(*a, *b, figures));
  bool written = true;
  if (!options.json_file.empty()) written = WriteFile(options.json_file, json, io);
  if (!options.html_file.empty()) {
    // The plots show the first run of each side.
    written &=
        WriteFile(options.html_file,
                  HtmlReport({std::move(a->front()), std::move(b->front())}, comparison), io);
  }
  return written ? kExitOk : kExitFailed;
}

int MakeLoad(const BenchOptions& options, const Invocation& call) {
  const Io& io = call.io;
  const Client client = call.MakeClient();
  v1::GetModelRequest get_model;
  get_model.set_model(options.model);
  const absl::StatusOr<v1::Model> model = client.GetModel(get_model, call.Call());
  if (!model.ok()) return CallFailed(io, model.status());
  const int32_t vocab_size = std::max(model->vocab_size(), 1);

  LoadGenerator generator(
      client, [&](int64_t index) { return MakeBenchRequest(options, vocab_size, index); },
      io.cancellation);
  if (*options.warmup_requests > 0 && !WarmUp(options, &generator, io)) return kExitFailed;
  BenchSetup setup;
  setup.address = client.address();
  setup.model = *model;
  setup.load = DescribeLoad(options);
  setup.requests = DescribeRequests(options);
  setup.max_new_tokens = MaxNewTokens(options);
  setup.started = absl::Now();
  setup.version = SLUICE_VERSION;
  setup.options = OptionTexts(options);
  const LoadResult result = RunPhase("bench", options.load, &generator, io);
  const BenchSummary summary = Summarize(result, options.targets);
  const bool written = WriteReports(options, setup, result, summary, io);
  const bool all_failed = summary.ok == 0 && summary.failed + summary.rejected > 0;
  return written && !all_failed && !summary.gave_up ? kExitOk : kExitFailed;
}

int Run(const Command& command, Invocation* call) {
  BenchOptions options;
  FlagSet flags;
  AddBenchFlags(&options, &flags);
  if (const std::optional<int> exit_code = ParseCommandLine(command, &flags, call))
    return *exit_code;
  const Io& io = call->io;
  for (const std::string& file : {options.json_file, options.html_file}) {
    const absl::Status status = CheckWritable(file);
    if (!status.ok()) return UsageError(command, io, status.message());
  }
  if (options.compare) return CompareRuns(command, options, *call);
  if (!call->args.empty()) {
    return UsageError(command, io, "takes no arguments (--prompt=TEXT? --compare?)");
  }
  options.load.timeout = call->connection.timeout;
  const absl::Status status = CompleteBenchOptions(&options);
  if (!status.ok()) return UsageError(command, io, status.message());
  // Prompts that an earlier run left in the prefix cache would make this one look faster.
  if (!options.prompt_seed) {
    options.prompt_seed = static_cast<uint64_t>(absl::ToUnixNanos(absl::Now()));
  }
  return MakeLoad(options, *call);
}

}  // namespace

const Command kBenchCommand = {
    "bench",
    "makes load and measures throughput and latencies; compares runs",
    "[FLAGS] | --compare A.json[,...] B.json[,...]",
    "Runs Generate calls and prints what clients see. first token: from the moment a request was\n"
    "due (in an open loop that may be before it could be sent) to its first tokens. inter-token:\n"
    "one value per token after that; the daemon merges the tokens of a slow reader into one\n"
    "message, and the gap before a message is then divided among its tokens. between messages:\n"
    "those gaps as they were, so a stall shows there. No thread per stream. Progress is on "
    "stderr.\n"
    "Rejected is what the daemon had no room for (RESOURCE_EXHAUSTED). Ctrl-C ends the run and\n"
    "prints what there is. Exit code 1 when no request went well, or the daemon went away.\n"
    "\n"
    "Prompts are fresh in each run unless --prompt-seed is given; lengths, arrivals and sampling "
    "are\n"
    "those of --seed.\n"
    "\n"
    "--compare takes two runs, or several a side with commas between the files. With four runs or\n"
    "more a side it marks what is better or worse by the noise between the runs: sides that do "
    "not\n"
    "differ get a mark in 3 of 100 comparisons. One run a side shows the noise within the runs "
    "alone.\n"
    "Runs that found different shares of their prompts cached are refused.",
    "  sluice bench --concurrency=16 --requests=200\n"
    "  sluice bench --concurrency=256 --duration=30s --prompt-tokens=1024 --max-new-tokens=64\n"
    "  sluice bench --rate=20 --duration=1m --warmup=10s --slo-ttft=200ms --slo-itl=50ms\n"
    "  sluice bench --rate=5 --shapes=tests/bench/shapes/sharegpt-like.jsonl --html=run.html\n"
    "  sluice bench --rate=5 --requests=1000 --prompt-tokens=lognormal:200:1.2:2048 --json=b.json\n"
    "  sluice bench --concurrency=8 --requests=400 --turns=5 --prompt-tokens=30\n"
    "  sluice bench --compare a.json b.json --html=difference.html\n"
    "  sluice bench --compare a1.json,a2.json,a3.json,a4.json b1.json,b2.json,b3.json,b4.json",
    Run};

}  // namespace sluice
