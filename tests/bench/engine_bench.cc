#include "tests/bench/engine_bench.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/engine.h"
#include "engine/tokenizer/tokenizer.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"

namespace sluice {
namespace {

class BenchClock : public Clock {
 public:
  absl::Duration Now() const override {
    return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }
  absl::Time WallNow() const override { return absl::Now(); }
};

class CountingSink : public TokenSink {
 public:
  int32_t Room() const override { return 1 << 20; }
  void Push(TokenEvent event) override {
    if (const auto* finished = std::get_if<FinishedEvent>(&event)) end = *finished;
  }
  void Close(absl::Status s) override { status = std::move(s); }

  FinishedEvent end;
  absl::Status status;
};

// A daemon's engine without the daemon.
struct Bench {
  BenchClock clock;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<Model> model;
  std::unique_ptr<Engine> engine;
  ModelSpec spec;
  int64_t parameters = 0;
  int32_t slots = 0;
  double load_seconds = 0.0;
};

absl::Status OpenBackend(const EngineBenchOptions& options, Bench* bench) {
  if (options.gpu < 0) {
    bench->backend = MakeCpuBackend({.threads = options.threads});
    return absl::OkStatus();
  }
  CudaOptions cuda;
  cuda.device = options.gpu;
  cuda.batch_invariant = options.batch_invariant;
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend(cuda);
  if (backend.ok()) bench->backend = *std::move(backend);
  return backend.status();
}

absl::Status Load(const EngineBenchOptions& bench_options, Bench* bench) {
  const std::string& dir = bench_options.model;
  const absl::Duration begin = bench->clock.Now();
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(dir);
  if (!checkpoint.ok()) return checkpoint.status();
  const ModelConfig& config = (*checkpoint)->config();
  bench->spec = config.spec;
  bench->parameters = (*checkpoint)->parameters();
  absl::Status status = OpenBackend(bench_options, bench);
  if (!status.ok()) return status;
  const BackendInfo& info = bench->backend->info();
  const int32_t batch_tokens = info.default_batch_tokens;
  std::string fingerprint;
  absl::StatusOr<Weights> weights = (*checkpoint)->Load(bench->backend.get(), {}, &fingerprint);
  if (!weights.ok()) return weights.status();
  TokenizerOptions tokenizer_options;
  tokenizer_options.vocab_size = config.spec.vocab;
  absl::StatusOr<std::unique_ptr<const Tokenizer>> tokenizer =
      Tokenizer::Load(dir, tokenizer_options);
  if (!tokenizer.ok()) return tokenizer.status();
  bench->tokenizer = *std::move(tokenizer);
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Create(bench->backend.get(), config.spec, *std::move(weights), batch_tokens);
  if (!model.ok()) return model.status();
  bench->model = *std::move(model);
  const absl::StatusOr<int64_t> budget = bench->backend->StateBudget(config.spec, batch_tokens);
  if (!budget.ok()) return budget.status();
  bench->slots = static_cast<int32_t>(
      std::clamp<int64_t>(*budget / bench->backend->SlotBytes(config.spec), 1, info.default_slots));
  status = bench->backend->AllocateStates(config.spec, bench->slots, bench->slots, batch_tokens);
  if (status.ok()) status = bench->model->Prepare();
  if (!status.ok()) return status;
  EngineOptions options;
  options.slots = bench->slots;
  options.max_batch_tokens = batch_tokens;
  bench->engine = std::make_unique<Engine>(bench->backend.get(), bench->model.get(),
                                           bench->tokenizer.get(), &bench->clock, options);
  bench->load_seconds = absl::ToDoubleSeconds(bench->clock.Now() - begin);
  return absl::OkStatus();
}

Request MakeRequest(const ModelSpec& spec, int64_t prompt_tokens, int32_t new_tokens,
                    uint64_t seed) {
  std::mt19937_64 rng(seed);
  Request request;
  request.prompt.resize(prompt_tokens);
  for (int32_t& token : request.prompt) token = static_cast<int32_t>(rng() % spec.vocab);
  request.seed = seed;
  request.stop.max_new_tokens = new_tokens;
  request.stop.ignore_eos = true;
  return request;
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Tokens per second of `streams` sequences that decode together, prompts aside.
double DecodeRate(Bench* bench, int streams, int32_t new_tokens, int runs) {
  std::vector<double> rates;
  for (int run = 0; run < runs; ++run) {
    std::vector<std::shared_ptr<CountingSink>> sinks;
    for (int i = 0; i < streams; ++i) {
      sinks.push_back(std::make_shared<CountingSink>());
      bench->engine->Submit(MakeRequest(bench->spec, 8, new_tokens, run * streams + i),
                            sinks.back());
    }
    while (bench->engine->Step()) {
    }
    double seconds = 0.0;
    for (const auto& sink : sinks) {
      seconds = std::max(seconds, absl::ToDoubleSeconds(sink->end.timings.decode));
    }
    rates.push_back(streams * (new_tokens - 1) / seconds);
  }
  return Median(rates);
}

double PrefillSeconds(Bench* bench, int64_t prompt_tokens, int runs) {
  std::vector<double> seconds;
  for (int run = 0; run < runs; ++run) {
    auto sink = std::make_shared<CountingSink>();
    bench->engine->Submit(MakeRequest(bench->spec, prompt_tokens, 1, run), sink);
    while (bench->engine->Step()) {
    }
    seconds.push_back(absl::ToDoubleSeconds(sink->end.timings.prefill));
  }
  return Median(seconds);
}

}  // namespace

int RunEngineBench(const EngineBenchOptions& options) {
  Bench bench;
  const absl::Status status = Load(options, &bench);
  if (!status.ok()) {
    std::fprintf(stderr, "sluice_bench: %s\n", std::string(status.message()).c_str());
    return 2;
  }
  std::vector<std::pair<std::string, double>> figures = {{"load_seconds", bench.load_seconds}};
  DecodeRate(&bench, 4, 64, 1);  // warm up
  const bool gpu = options.gpu >= 0;
  const int runs = gpu ? 3 : 5;
  for (int streams : gpu ? std::vector<int>{1, 8, 32, 256} : std::vector<int>{1, 4, 16, 64}) {
    if (streams > bench.slots) continue;
    figures.emplace_back(absl::StrCat("decode_", streams, "_tok_s"),
                         DecodeRate(&bench, streams, 257, runs));
  }
  for (int64_t length : gpu ? std::vector<int64_t>{64, 1024, 2048, 4096, 8192, 16384}
                            : std::vector<int64_t>{64, 512, 2048, 8192}) {
    const double seconds = PrefillSeconds(&bench, length, runs);
    figures.emplace_back(absl::StrCat("prefill_", length, "_seconds"), seconds);
    figures.emplace_back(absl::StrCat("prefill_", length, "_tok_s"), length / seconds);
  }
  if (!options.json) {
    std::printf("%s, %.2f M parameters, on %s, %s\n", options.model.c_str(), bench.parameters / 1e6,
                bench.backend->info().device.c_str(), bench.backend->info().numerics_id.c_str());
  }
  const char* separator = "{";
  for (const auto& [name, value] : figures) {
    if (options.json) {
      std::printf("%s\"%s\": %.6g", std::exchange(separator, ", "), name.c_str(), value);
    } else {
      std::printf("%-24s %12.*f\n", name.c_str(), value < 100 ? 4 : 0, value);
    }
  }
  if (options.json) std::printf("}\n");
  return 0;
}

}  // namespace sluice
