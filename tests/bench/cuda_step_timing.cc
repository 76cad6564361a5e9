#include "tests/bench/cuda_step_timing.h"

#include <algorithm>
#include <random>

namespace sluice {

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

double SecondsOfPrompts(Backend* backend, Model* model, int count, int length) {
  std::mt19937 random(7);
  std::vector<int32_t> tokens(int64_t{count} * length);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 32000);
  const SamplingConfig greedy = {.temperature = 0.0f};
  std::vector<PromptSegment> prompts;
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
  return times[times.size() / 2];
}

}  // namespace sluice
