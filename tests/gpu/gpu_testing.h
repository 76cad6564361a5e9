// Code that the tests on a GPU share: both backends, sequences taken through steps, errors between
// two results.
#ifndef SLUICE_TESTS_GPU_GPU_TESTING_H_
#define SLUICE_TESTS_GPU_GPU_TESTING_H_

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "engine/model.h"
#include "kernels/backend.h"
#include "tests/kernels/reference_model.h"

namespace sluice {

std::unique_ptr<Backend> CudaOrDie(bool batch_invariant = true, bool graphs = true);
std::unique_ptr<Backend> Cpu();

// sqrt(sum (a - b)^2 / sum b^2); NaN where either holds one.
double RelativeRms(const std::vector<float>& a, const std::vector<float>& b);
// max |a - b| / max |b|
double RelativeMax(const std::vector<float>& a, const std::vector<float>& b);

// A model on a backend, with sequences in its slots.
class Runner {
 public:
  Runner(std::unique_ptr<Backend> backend, const TestModel& model, int32_t slots, int32_t max_rows);

  // One step: `prompts` then decode rows; logits (vocab) of each segment's last token and of each
  // decode row, decode rows first.
  struct Prompt {
    int32_t slot;
    int64_t start;
    std::vector<int32_t> tokens;
  };
  struct Decode {
    int32_t slot;
    int32_t token;
  };
  std::vector<std::vector<float>> Step(const std::vector<Decode>& decode,
                                       const std::vector<Prompt>& prompts);

  std::vector<float> State(int32_t slot);
  void Zero(int32_t slot);
  absl::Status Prepare() { return model_->Prepare(); }
  Backend* backend() { return backend_.get(); }

 private:
  ModelSpec spec_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_GPU_GPU_TESTING_H_
