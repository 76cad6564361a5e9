#include "tests/gpu/gpu_testing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/state_table.h"

namespace sluice {

std::unique_ptr<Backend> CudaOrDie(bool batch_invariant, bool graphs) {
  CudaOptions options;
  options.batch_invariant = batch_invariant;
  options.graphs = graphs;
  // Under a sanitizer a step takes many times as long.
  if (const char* seconds = std::getenv("SLUICE_PATIENCE_SECONDS"); seconds != nullptr)
    options.patience = std::chrono::seconds(std::atoi(seconds));
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend(options);
  if (!backend.ok()) {
    std::fprintf(stderr, "%s\n", backend.status().ToString().c_str());
    std::exit(2);
  }
  return *std::move(backend);
}

std::unique_ptr<Backend> Cpu() { return MakeCpuBackend({}); }

double RelativeRms(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double d = static_cast<double>(a[i]) - b[i];
    difference += d * d;
    norm += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(difference / norm);
}

double RelativeMax(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference = std::max<double>(difference, std::abs(a[i] - b[i]));
    norm = std::max<double>(norm, std::abs(b[i]));
  }
  return difference / norm;
}

Runner::Runner(std::unique_ptr<Backend> backend, const TestModel& model, int32_t slots,
               int32_t max_rows)
    : spec_(model.shape().Spec()), backend_(std::move(backend)) {
  Weights weights = model.LoadInto(backend_.get());
  const absl::Status states = backend_->AllocateStates(spec_, slots, 1, max_rows);
  EXPECT_TRUE(states.ok()) << states;
  absl::StatusOr<std::unique_ptr<Model>> made =
      Model::Create(backend_.get(), spec_, std::move(weights), max_rows);
  EXPECT_TRUE(made.ok()) << made.status();
  model_ = *std::move(made);
}

std::vector<std::vector<float>> Runner::Step(const std::vector<Decode>& decode,
                                             const std::vector<Prompt>& prompts) {
  std::vector<DecodeRow> rows;
  for (const Decode& d : decode) rows.push_back({d.slot, d.token});
  std::vector<PromptSegment> segments;
  std::vector<int32_t> wanted(decode.size());
  int32_t row = static_cast<int32_t>(decode.size());
  for (int32_t i = 0; i < row; ++i) wanted[i] = i;
  for (const Prompt& p : prompts) {
    segments.push_back({p.slot, p.start, static_cast<int32_t>(p.tokens.size()), p.tokens.data()});
    row += static_cast<int32_t>(p.tokens.size());
    wanted.push_back(row - 1);
  }
  const SamplingConfig greedy = {.temperature = 0.0f};
  std::vector<std::vector<float>> logits(wanted.size(), std::vector<float>(spec_.vocab, NAN));
  std::vector<LogitRow> logit_rows(wanted.size());
  std::vector<LogitResult> results(wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    logit_rows[i].row = wanted[i];
    logit_rows[i].slot = i < decode.size() ? decode[i].slot : prompts[i - decode.size()].slot;
    logit_rows[i].sampling = &greedy;
    logit_rows[i].alternatives = 1;
    logit_rows[i].logits_out = logits[i].data();
  }
  StepRows step;
  step.decode = rows.data();
  step.num_decode = static_cast<int32_t>(rows.size());
  step.prompts = segments.data();
  step.num_prompts = static_cast<int32_t>(segments.size());
  step.logits = logit_rows.data();
  step.num_logits = static_cast<int32_t>(logit_rows.size());
  step.results = results.data();
  const absl::Status status = backend_->Await(model_->Step(&step));
  EXPECT_TRUE(status.ok()) << status;
  for (size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_TRUE(results[i].finite);
    const auto best = std::max_element(logits[i].begin(), logits[i].end());
    EXPECT_EQ(results[i].token, best - logits[i].begin());
    EXPECT_EQ(results[i].rank, 1);
    EXPECT_EQ(results[i].alternatives[0].token, results[i].token);
  }
  return logits;
}

std::vector<float> Runner::State(int32_t slot) {
  std::vector<float> state(MakeStateTable(spec_).bytes() / sizeof(float), NAN);
  const absl::Status status = backend_->Await(backend_->ReadState(slot, state.data(), 0));
  EXPECT_TRUE(status.ok()) << status;
  return state;
}

void Runner::Zero(int32_t slot) { backend_->ZeroState(slot); }

}  // namespace sluice
