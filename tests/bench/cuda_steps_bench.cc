#include "tests/bench/cuda_steps_bench.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "tests/bench/random_model.h"

namespace sluice {
namespace {

constexpr double kWeights = 1299.8e6;
constexpr double kHeadWeights = 65.5e6;   // of them, the lm head's
constexpr double kStateBytes = 100.66e6;  // of a sequence, read and written

// Seconds of a step, two in flight; the two differ in where their results go alone.
double SecondsOfStep(Backend* backend, Model* model, StepRows rows, int steps) {
  std::vector<LogitResult> results[2];
  StepRows step[2];
  for (int i = 0; i < 2; ++i) {
    results[i].resize(rows.num_logits);
    step[i] = rows;
    step[i].results = results[i].data();
  }
  for (int i = 0; i < 3; ++i) Ok(backend->Await(model->Step(&step[0])));
  std::vector<double> times;
  for (int round = 0; round < 3; ++round) {
    const double begin = Seconds();
    Ticket previous = 0;
    for (int i = 0; i < steps; ++i) {
      const Ticket ticket = model->Step(&step[i % 2]);
      if (previous != 0) Ok(backend->Await(previous));
      previous = ticket;
    }
    Ok(backend->Await(previous));
    times.push_back((Seconds() - begin) / steps);
  }
  std::sort(times.begin(), times.end());
  return times[1];
}

// The floor of a step that takes so many rows through the layers, for so many sequences, each of
// which is sampled from.
double FloorSeconds(const GpuLimits& limits, int rows, int sequences) {
  const double states = sequences * kStateBytes / limits.copy_rate;
  const double flop = 2 * (rows * (kWeights - kHeadWeights) + sequences * kHeadWeights);
  return states + std::max(kWeights * 2 / limits.copy_rate, flop / limits.gemm_rate);
}

// The tokens of `batch` sequences that decode, then of `prompts` prompts of `length` each, all
// sampled from.
struct Rows {
  Rows(int batch, int prompts, int length) : tokens(length, 1) {
    for (int i = 0; i < batch; ++i) {
      decode.push_back({i, kLastSampled});
      Sample(i, i);
    }
    for (int i = 0; i < prompts; ++i) {
      segments.push_back({batch + i, 0, length, tokens.data()});
      Sample(batch + (i + 1) * length - 1, batch + i);
    }
    step.decode = decode.data();
    step.num_decode = batch;
    step.prompts = segments.data();
    step.num_prompts = prompts;
    step.logits = logits.data();
    step.num_logits = batch + prompts;
  }
  void Sample(int row, int slot) {
    static constexpr SamplingConfig kGreedy = {.temperature = 0.0f};
    logits.push_back({.row = row, .slot = slot, .sampling = &kGreedy});
  }

  std::vector<int32_t> tokens;
  std::vector<DecodeRow> decode;
  std::vector<PromptSegment> segments;
  std::vector<LogitRow> logits;
  StepRows step;
};

void DecodeStep(const GpuLimits& limits, Backend* backend, Model* model, int max_slots,
                const char* name) {
  std::printf("\ndecode step, 1.3B, %s: two in flight, greedy\n%6s %9s %9s %9s %8s\n", name, "B",
              "ms", "floor ms", "tok/s", "of floor");
  for (const int batch : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}) {
    if (batch > max_slots) continue;
    const Rows rows(batch, 0, 0);
    const double seconds = SecondsOfStep(backend, model, rows.step, batch <= 64 ? 60 : 20);
    const double floor = FloorSeconds(limits, batch, batch);
    std::printf("%6d %9.3f %9.3f %9.0f %7.1f%%\n", batch, seconds * 1e3, floor * 1e3,
                batch / seconds, 100 * floor / seconds);
  }
}

// Decode rows beside short prompts, as calls come in.
void MixedStep(const GpuLimits& limits, Backend* backend, Model* model, const char* name) {
  constexpr int kLength = 16;
  std::printf(
      "\ndecode rows and prompts of %d tokens, 1.3B, %s: two in flight, greedy\n%6s %8s %9s %9s "
      "%9s %8s\n",
      kLength, name, "B", "prompts", "ms", "more", "floor ms", "of floor");
  for (const int batch : {1, 16, 64}) {
    double decode = 0.0;
    for (const int prompts : {0, 1, 4, 16}) {
      const Rows rows(batch, prompts, kLength);
      const double seconds = SecondsOfStep(backend, model, rows.step, 40);
      if (prompts == 0) decode = seconds;
      const double floor = FloorSeconds(limits, batch + prompts * kLength, batch + prompts);
      std::printf("%6d %8d %9.3f %9.3f %9.3f %7.1f%%\n", batch, prompts, seconds * 1e3,
                  (seconds - decode) * 1e3, floor * 1e3, 100 * floor / seconds);
    }
  }
}

void Prefill(const GpuLimits& limits, Backend* backend, Model* model, int max_rows) {
  constexpr int kMaxPrompts = 128;
  std::printf("\nprefill, 1.3B, up to %d tokens and %d prompts a step\n%6s %9s %9s %9s\n", max_rows,
              kMaxPrompts, "L", "ms", "tok/s", "of GEMM");
  const std::vector<int32_t> tokens = [&] {
    std::mt19937 random(7);
    std::vector<int32_t> values(max_rows);
    for (int32_t& v : values) v = static_cast<int32_t>(random() % 32000);
    return values;
  }();
  const SamplingConfig greedy = {.temperature = 0.0f};
  for (const int length : {16, 64, 128, 1024, 2048, 4096, 8192, 16384}) {
    if (length > max_rows) continue;
    std::vector<PromptSegment> prompts;
    const int count = std::min(max_rows / length, kMaxPrompts);
    std::vector<LogitRow> logits(count);
    for (int i = 0; i < count; ++i) {
      prompts.push_back({i, 0, length, tokens.data() + int64_t{i} * length});
      logits[i].row = (i + 1) * length - 1;
      logits[i].slot = i;
      logits[i].sampling = &greedy;
    }
    std::vector<LogitResult> results(count);
    StepRows step;
    step.prompts = prompts.data();
    step.num_prompts = count;
    step.logits = logits.data();
    step.num_logits = count;
    step.results = results.data();
    std::vector<double> times;
    for (int i = 0; i < 6; ++i) {
      const double begin = Seconds();
      Ok(backend->Await(model->Step(&step)));
      if (i > 0) times.push_back(Seconds() - begin);
    }
    std::sort(times.begin(), times.end());
    const double seconds = times[times.size() / 2], rows = double{1} * count * length;
    const double floor = rows * 2 * (kWeights - kHeadWeights) / limits.gemm_rate;
    std::printf("%6d %9.2f %9.0f %8.1f%%\n", length, seconds * 1e3, rows / seconds,
                100 * floor / seconds);
  }
}

}  // namespace

void CudaStepsBench(int device, const GpuLimits& limits, bool decode, bool mixed, bool prefill) {
  for (const bool invariant : {true, false}) {
    CudaOptions options;
    options.device = device;
    options.batch_invariant = invariant;
    const double begin = Seconds();
    absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend(options);
    Ok(backend.status());
    constexpr int kMaxRows = 16384, kSlots = 1024;
    absl::StatusOr<std::unique_ptr<Model>> model =
        RandomModel(backend->get(), Shape13B(), kSlots, kMaxRows);
    Ok(model.status());
    std::printf("\nbackend, weights and graphs in %.2f s, %s", Seconds() - begin,
                (*backend)->info().numerics_id.c_str());
    const char* name = invariant ? "batch-invariant" : "library from 33 rows";
    if (decode) DecodeStep(limits, backend->get(), model->get(), kSlots, name);
    if (mixed) MixedStep(limits, backend->get(), model->get(), name);
    if (prefill && invariant) Prefill(limits, backend->get(), model->get(), kMaxRows);
  }
}

}  // namespace sluice
