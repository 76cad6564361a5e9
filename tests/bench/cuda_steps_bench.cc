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

constexpr double kWeightBytes = 1299.8e6 * 2;
constexpr double kStateBytes = 100.66e6;

void DecodeStep(const GpuLimits& limits, Backend* backend, Model* model, int max_slots,
                const char* name) {
  std::printf("\ndecode step, 1.3B, %s: two in flight, greedy\n%6s %9s %9s %9s %8s\n", name, "B",
              "ms", "floor ms", "tok/s", "of floor");
  const SamplingConfig greedy = {.temperature = 0.0f};
  for (const int batch : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}) {
    if (batch > max_slots) continue;
    std::vector<DecodeRow> rows;
    std::vector<LogitRow> logits(batch);
    for (int i = 0; i < batch; ++i) {
      rows.push_back({i, kLastSampled});
      logits[i].row = logits[i].slot = i;
      logits[i].sampling = &greedy;
    }
    StepRows step[2];
    std::vector<LogitResult> results[2];
    for (int i = 0; i < 2; ++i) {
      results[i].resize(batch);
      step[i].decode = rows.data();
      step[i].num_decode = batch;
      step[i].logits = logits.data();
      step[i].num_logits = batch;
      step[i].results = results[i].data();
    }
    for (int i = 0; i < 3; ++i) Ok(backend->Await(model->Step(&step[0])));
    const int steps = batch <= 64 ? 60 : 20;
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
    const double floor = (kWeightBytes + batch * kStateBytes) / limits.copy_rate;
    const double compute =
        batch * 2 * 1299.8e6 / limits.gemm_rate + batch * kStateBytes / limits.copy_rate;
    const double best = std::max(floor, compute);
    std::printf("%6d %9.3f %9.3f %9.0f %7.1f%%\n", batch, times[1] * 1e3, best * 1e3,
                batch / times[1], 100 * best / times[1]);
  }
}

void Prefill(const GpuLimits& limits, Backend* backend, Model* model, int max_rows) {
  std::printf("\nprefill, 1.3B, %d tokens a step\n%6s %9s %9s %9s\n", max_rows, "L", "ms", "tok/s",
              "of GEMM");
  const std::vector<int32_t> tokens = [&] {
    std::mt19937 random(7);
    std::vector<int32_t> values(max_rows);
    for (int32_t& v : values) v = static_cast<int32_t>(random() % 32000);
    return values;
  }();
  const SamplingConfig greedy = {.temperature = 0.0f};
  for (const int length : {128, 1024, 2048, 4096, 8192, 16384}) {
    if (length > max_rows) continue;
    std::vector<PromptSegment> prompts;
    const int count = std::min(max_rows / length, 128);
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
    const double floor = rows * 2 * (1299.8e6 - 65.5e6) / limits.gemm_rate;
    std::printf("%6d %9.2f %9.0f %8.1f%%\n", length, seconds * 1e3, rows / seconds,
                100 * floor / seconds);
  }
}

}  // namespace

void CudaStepsBench(int device, const GpuLimits& limits, bool decode, bool prefill) {
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
    if (decode) {
      DecodeStep(limits, backend->get(), model->get(), kSlots,
                 invariant ? "batch-invariant" : "library from 33 rows");
    }
    if (prefill && invariant) Prefill(limits, backend->get(), model->get(), kMaxRows);
  }
}

}  // namespace sluice
