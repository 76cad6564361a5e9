// Ops on rows: embedding, norms, biases, gated linear units. Launches return what cudaGetLastError
// would; `meta` is in device memory.
#ifndef SLUICE_KERNELS_CUDA_ROW_OPS_H_
#define SLUICE_KERNELS_CUDA_ROW_OPS_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/step_meta.h"
#include "kernels/mixer_spec.h"

namespace sluice::cuda {

// x (rows, hidden) fp32 = scale times table's rows of the step's tokens. `last_sampled` (slots).
cudaError_t LaunchEmbed(const StepHeader* meta, const __nv_bfloat16* table, int64_t vocab,
                        int64_t hidden, float scale, const int32_t* last_sampled, float* x,
                        int grid_rows, cudaStream_t stream);

// y (rows, hidden) bf16 = RMSNorm(x; weight), for rows first .. first + grid_rows - 1 of the step.
cudaError_t LaunchRmsNorm(const StepHeader* meta, int first, const float* x, const float* weight,
                          int64_t hidden, float eps, __nv_bfloat16* y, int grid_rows,
                          cudaStream_t stream);

// Row i of y is the row of x that the step's logit row `first + i` names.
cudaError_t LaunchRmsNormGather(const StepHeader* meta, int first, const float* x,
                                const float* weight, int64_t hidden, float eps, __nv_bfloat16* y,
                                int grid_rows, cudaStream_t stream);

// The same two with LayerNorm; `weight` and `bias` (hidden).
cudaError_t LaunchLayerNorm(const StepHeader* meta, int first, const float* x, const float* weight,
                            const float* bias, int64_t hidden, float eps, __nv_bfloat16* y,
                            int grid_rows, cudaStream_t stream);
cudaError_t LaunchLayerNormGather(const StepHeader* meta, int first, const float* x,
                                  const float* weight, const float* bias, int64_t hidden, float eps,
                                  __nv_bfloat16* y, int grid_rows, cudaStream_t stream);

// Each of `rows` rows of y, `stride` apart, += bias (cols).
cudaError_t LaunchAddBias(__nv_bfloat16* y, int64_t stride, const float* bias, int64_t cols,
                          int rows, cudaStream_t stream);
cudaError_t LaunchAddBias(float* y, int64_t stride, const float* bias, int64_t cols, int rows,
                          cudaStream_t stream);

// y (rows, intermediate) = act(gate + gate_bias) * (up + up_bias); in (rows, 2 * padded
// intermediate), in blocks of kGateUpBlock columns. Biases (intermediate), or null.
struct GluArgs {
  const __nv_bfloat16* in = nullptr;
  int64_t in_stride = 0;
  int64_t intermediate = 0;
  Act act = Act::kSilu;
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  __nv_bfloat16* y = nullptr;
};
cudaError_t LaunchGlu(const GluArgs& args, int rows, cudaStream_t stream);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_ROW_OPS_H_
