// The delta core on the device (arXiv 2102.11174, 2406.06484, 2412.06464):
//   S <- D S,   u = beta (v - S^T k),   S <- S + k u^T,   o = S^T q
// with what its models do to queries, keys and decays behind the front that it shares with the
// linear core (linear_front.h). All arithmetic is in fp32, of prompts too. All pointers are device
// memory.
#ifndef SLUICE_KERNELS_CUDA_DELTA_H_
#define SLUICE_KERNELS_CUDA_DELTA_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/linear.h"
#include "kernels/mixer_spec.h"

namespace sluice::cuda {

// One layer's core for one step.
struct DeltaArgs {
  // Heads, widths and places. Every row of the step, prompt rows too, is in `decode_front`, whose
  // values are a head for each state; log_decay, key_scale and prompt_front are not used.
  LinearArgs layer;
  const float* beta = nullptr;  // (rows, state_heads); null: beta_max
  float beta_max = 1.0f;
  // D - 1, which keeps the digits by which a slow decay differs from none: (rows, state_heads), or
  // (rows, state_heads * dk) for LinearDecay::kKey; null: 0.
  const float* loss = nullptr;
};

// The widest head that the kernels take.
inline constexpr int32_t kMostDeltaKeys = 512;

// Norms the heads of q and k, in place, and scales q.
struct DeltaNorms {
  const StepHeader* meta = nullptr;
  float* front = nullptr;  // (rows, stride): q (q_heads, dk) | k (k_heads, dk) | ...
  int64_t stride = 0;
  int32_t q_heads = 0, k_heads = 0, dk = 0;
  QkNorm q_norm = QkNorm::kL2, k_norm = QkNorm::kL2;  // kNone, kL2 or kSumAbs
  float q_scale = 1.0f;
};
// Rows [0, grid_rows) of the step; those that are more than it has are left alone.
cudaError_t LaunchDeltaNorms(const DeltaNorms& args, int grid_rows, cudaStream_t stream);

// GateMap::kKda and kKdaBounded: from the gate's product, bias included, to D - 1, in place.
struct KdaGates {
  const StepHeader* meta = nullptr;
  float* loss = nullptr;         // (rows, state_heads * dk)
  const float* a_log = nullptr;  // (state_heads)
  int32_t state_heads = 0, dk = 0;
  bool bounded = false;
  float log_gate_min = 0.0f;  // where bounded
};
cudaError_t LaunchKdaGates(const KdaGates& args, int grid_rows, cudaStream_t stream);

// Decode rows [0, meta->num_decode): states, and `back`.
cudaError_t LaunchDeltaDecode(const DeltaArgs& args, const LinearBack& back,
                              const LinearDecodeBuffers& buffers, int grid_rows,
                              cudaStream_t stream);
// Core and `back` of the prompt rows [first, first + rows) of a step, which has `chunks` chunks.
cudaError_t LaunchDeltaPrompts(const DeltaArgs& args, const LinearBack& back, int chunks, int first,
                               int rows, cudaStream_t stream);
// Core alone, token by token: what both of the above use where heads have any width.
cudaError_t LaunchDeltaRecurrence(const DeltaArgs& args, const LinearDecodeBuffers& buffers,
                                  int grid_rows, cudaStream_t stream);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_DELTA_H_
