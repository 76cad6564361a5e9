// Times of whole steps on the CUDA backend.
#ifndef SLUICE_TESTS_BENCH_CUDA_STEP_TIMING_H_
#define SLUICE_TESTS_BENCH_CUDA_STEP_TIMING_H_

#include <cstdint>
#include <vector>

#include "engine/model.h"
#include "kernels/backend.h"
#include "kernels/step_rows.h"
#include "tests/bench/cuda_timing.h"

namespace sluice {

// The tokens of `batch` sequences that decode, then of `prompts` prompts of `length` each, all
// sampled from.
struct BenchRows {
  BenchRows(int batch, int prompts, int length) : tokens(length, 1) {
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

// Seconds of a step, two in flight; the two differ in where their results go alone.
double SecondsOfStep(Backend* backend, Model* model, StepRows rows, int steps);

// Seconds of a step of `count` prompts of `length` random tokens each, all sampled from.
double SecondsOfPrompts(Backend* backend, Model* model, int count, int length);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_CUDA_STEP_TIMING_H_
