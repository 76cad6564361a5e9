// A GLA model with random weights: loaded into a backend, and computed token by token in fp64, with
// nothing shared between the two but the weights.
#ifndef SLUICE_TESTS_KERNELS_REFERENCE_MODEL_H_
#define SLUICE_TESTS_KERNELS_REFERENCE_MODEL_H_

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "engine/checkpoint/families/gla.h"
#include "engine/model.h"
#include "engine/weights.h"
#include "kernels/backend.h"
#include "kernels/ops.h"

namespace sluice {

// A matrix in a checkpoint's dtype, and exactly the same numbers in fp64.
struct TestMatrix {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<uint8_t> bytes;
  std::vector<double> values;  // (rows, cols)

  MatrixView view() const { return {bytes.data(), dtype, rows, cols}; }
};

// Normal numbers with deviation `scale` around `mean`.
TestMatrix RandomMatrix(int64_t rows, int64_t cols, double scale, DType dtype,
                        std::mt19937_64* random, double mean = 0.0);

struct TestLayer {
  TestMatrix attn_norm, q, k, v, gate_in, g, gate, gate_bias, conv_q, conv_k, conv_v, head_norm,
      out;
  TestMatrix mlp_norm, mlp_gate, mlp_up, mlp_down;
};

class TestModel {
 public:
  struct Options {
    DType dtype = DType::kBF16;
    double gate_bias_mean = 4.0;  // the smaller, the stronger the decay
    bool head_norm_weight = true;
    bool tied = false;
    uint64_t seed = 1;
  };
  TestModel(const GlaShape& shape, const Options& options);

  const GlaShape& shape() const { return shape_; }

  // Loads the whole model into the backend; ASSERTs on errors of the backend.
  Weights LoadInto(Backend* backend) const;

 private:
  friend class ReferenceSequence;

  GlaShape shape_;
  Options options_;
  TestMatrix embeddings_, norm_, lm_head_;
  std::vector<TestLayer> layers_;
};

// One sequence, by the recurrence in fp64.
class ReferenceSequence {
 public:
  explicit ReferenceSequence(const TestModel* model);

  // Takes one token; returns logits (vocab).
  std::vector<double> Step(int32_t token);

  // The state in canonical form.
  std::vector<double> State() const;

 private:
  struct LayerState {
    std::vector<double> matrix;                  // (kv_heads, dk, dv)
    std::vector<double> conv_q, conv_k, conv_v;  // (conv_size - 1, channels)
  };
  std::vector<double> Mixer(const std::vector<double>& x, const TestLayer& layer,
                            LayerState* state) const;

  const TestModel* model_;
  std::vector<LayerState> state_;
};

// A backend with a model in it and room for steps; what most tests start from.
struct TestDevice {
  TestDevice(const TestModel& model, int threads, int32_t slots, int32_t max_rows,
             int32_t count_tables = 1);

  // Runs one step to its end.
  std::vector<LogitResult> Step(const std::vector<DecodeRow>& decode,
                                const std::vector<PromptSegment>& prompts,
                                const std::vector<LogitRow>& logits);
  // Takes `tokens` through `slot` as prompt segments that end at `cuts`; returns the logits of
  // every token.
  std::vector<float> Prefill(int32_t slot, const std::vector<int32_t>& tokens,
                             std::vector<int64_t> cuts = {});
  // The same one token at a time.
  std::vector<float> Decode(int32_t slot, const std::vector<int32_t>& tokens);
  std::vector<float> ReadState(int32_t slot);

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Model> model;
  int64_t vocab = 0;
};

std::vector<int32_t> RandomTokens(int64_t count, int64_t vocab, uint64_t seed);

// sqrt(sum (a - b)^2 / sum b^2)
double RelativeRms(const std::vector<float>& a, const std::vector<double>& b);

}  // namespace sluice

#endif  // SLUICE_TESTS_KERNELS_REFERENCE_MODEL_H_
