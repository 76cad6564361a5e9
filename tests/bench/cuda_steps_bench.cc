#include "tests/bench/cuda_steps_bench.h"

#include <algorithm>
#include <cstdio>
#include <memory>

#include "kernels/cuda/cuda_backend.h"
#include "tests/bench/cuda_step_timing.h"
#include "tests/bench/random_model.h"

namespace sluice {
namespace {

constexpr double kWeights = 1299.8e6;
constexpr double kHeadWeights = 65.5e6;   // of them, the lm head's
constexpr double kStateBytes = 100.66e6;  // of a sequence, read and written

// The floor of a step that takes so many rows through the layers, for so many sequences, each of
// which is sampled from.
double FloorSeconds(const GpuLimits& limits, int rows, int sequences) {
  const double states = sequences * kStateBytes / limits.copy_rate;
  const double flop = 2 * (rows * (kWeights - kHeadWeights) + sequences * kHeadWeights);
  return states + std::max(kWeights * 2 / limits.copy_rate, flop / limits.gemm_rate);
}

void DecodeStep(const GpuLimits& limits, Backend* backend, Model* model, int max_slots,
                const char* name) {
  std::printf("\ndecode step, 1.3B, %s: two in flight, greedy\n%6s %9s %9s %9s %8s\n", name, "B",
              "ms", "floor ms", "tok/s", "of floor");
  for (const int batch : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}) {
    if (batch > max_slots) continue;
    const BenchRows rows(batch, 0, 0);
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
      const BenchRows rows(batch, prompts, kLength);
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
  for (const int length : {16, 64, 128, 1024, 2048, 4096, 8192, 16384}) {
    if (length > max_rows) continue;
    const int count = std::min(max_rows / length, kMaxPrompts);
    const double seconds = SecondsOfPrompts(backend, model, count, length);
    const double rows = double{1} * count * length;
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
