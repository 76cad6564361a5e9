// One layer's mixer with random weights on one backend, on inputs that are equal in both.
#ifndef SLUICE_TESTS_GPU_MIXER_RUNNER_H_
#define SLUICE_TESTS_GPU_MIXER_RUNNER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/model_spec.h"

namespace sluice {

// x, rounded as the device's activations are.
float RoundToBf16(float x);
// (rows, cols) normal values, bf16's.
std::vector<float> RandomInputs(int64_t rows, int64_t cols, uint64_t seed);

// Host values of a mixer's weights, empty where a spec has no use for them. All but `log_decay` are
// bf16's.
struct MixerValues {
  std::vector<float> conv_q, conv_k, conv_v, conv_q_bias, conv_k_bias, conv_v_bias;
  std::vector<float> gate, gate_bias, log_decay, lower_bound, a_log;
  std::vector<float> q_map, k_map, q_map_bias, k_map_bias;
  std::vector<float> q_map2, k_map2, q_map2_bias, k_map2_bias;
  std::vector<float> theta, q_norm, k_norm, skip, out_norm, out_norm_bias, out_gate, out_gate_bias;
};
// gate_bias: the mean of the gates' biases.
MixerValues RandomMixerValues(const MixerSpec& spec, double gate_bias, uint64_t seed);

// A model of `layers` layers that are this mixer alone.
ModelSpec MixerModel(const MixerSpec& spec, int64_t layers);

class MixerRunner {
 public:
  MixerRunner(std::unique_ptr<Backend> backend, bool cuda, const ModelSpec& model,
              const MixerValues& values, int32_t slots, int32_t max_rows);

  // in (rows, in_dim), bf16 numbers; returns out (rows, out_dim).
  std::vector<float> Run(const std::vector<float>& in, const std::vector<DecodeRow>& decode,
                         const std::vector<PromptSegment>& prompts, int64_t layer);

  // The slot has seen `tokens`, which counts where states grow.
  std::vector<float> State(int32_t slot, int64_t tokens = 0);
  Backend* backend() { return backend_.get(); }
  const MixerSpec& spec() const { return *args_.spec; }

 private:
  void Load(const MixerValues& values);

  std::unique_ptr<Backend> backend_;
  const bool cuda_;
  const ModelSpec model_;
  MixerWeights weights_;
  MixArgs args_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_GPU_MIXER_RUNNER_H_
