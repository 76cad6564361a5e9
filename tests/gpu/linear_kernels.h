// The generic linear core's kernels outside a backend: device memory for one layer, random inputs,
// and the same layer in float64 on the host.
#ifndef SLUICE_TESTS_GPU_LINEAR_KERNELS_H_
#define SLUICE_TESTS_GPU_LINEAR_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/linear.h"
#include "kernels/ops.h"

namespace sluice {

struct LinearCase {
  std::string name;
  cuda::LinearDecay decay = cuda::LinearDecay::kNone;
  int32_t q_heads = 1, k_heads = 1, v_heads = 1, state_heads = 1, dk = 64, dv = 64;
  float mean_log_decay = -0.05f;  // of a token, exponentially distributed
  bool key_scale = false;
  bool normaliser = false;  // keys and queries are then positive
  cuda::BackNorm norm = cuda::BackNorm::kRms;
  int32_t norm_spans = 0;  // of a row; 0: one a head
  cuda::BackGate gate = cuda::BackGate::kNone;
  bool gate_first = false;
  bool skip = false;

  int32_t out_heads() const { return q_heads > state_heads ? q_heads : state_heads; }
  int32_t front_width() const { return (q_heads + k_heads) * dk + v_heads * dv; }
  int32_t out_width() const { return out_heads() * dv; }
  int64_t state_floats() const { return int64_t{state_heads} * dk * dv; }
  int64_t slot_floats() const { return state_floats() + (normaliser ? state_heads * dk : 0); }
};

// The values that front would leave for some rows, all of them exact in bf16.
struct LinearInputs {
  std::vector<float> front, log_decay, key_scale, gate;  // (rows, their widths)
};
LinearInputs RandomLinearInputs(const LinearCase& c, int64_t rows, uint64_t seed);

// One layer in float64.
class LinearReference {
 public:
  explicit LinearReference(const LinearCase& c) : case_(c) {}
  // Appends the outputs of row `row` of `in`, which continues the sequence whose slot is `slot`.
  void Step(const LinearInputs& in, int64_t row, std::vector<double>* slot,
            std::vector<float>* out) const;

 private:
  const LinearCase case_;
};

// One layer on the device.
class LinearKernels {
 public:
  LinearKernels(const LinearCase& c, int32_t slots, int32_t max_rows);

  // Rows as a step has them, prompts in their order; returns (rows, out_width).
  std::vector<float> Run(const LinearInputs& in, const std::vector<DecodeRow>& decode,
                         const std::vector<PromptSegment>& prompts);
  std::vector<float> Slot(int32_t slot);
  void SetSlot(int32_t slot, const std::vector<float>& values);

  // For benchmarks: the arguments, with inputs and a step in place. `meta` is the device's.
  cuda::LinearArgs args;
  cuda::LinearBack back;
  cuda::LinearBuffers buffers;
  cuda::LinearDecodeBuffers decode_buffers;

  void Upload(const LinearInputs& in);

 private:
  cuda::Memory Allocate(int64_t bytes);

  const LinearCase case_;
  const int32_t max_rows_;
  std::vector<cuda::Memory> memory_;
  cuda::Memory states_, decode_front_, prompt_front_, log_decay_, key_scale_, gate_, out_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_GPU_LINEAR_KERNELS_H_
