// Ops on rows: embedding, RMSNorm, SwiGLU. Launches return what cudaGetLastError would; `meta` is
// in device memory.
#ifndef SLUICE_KERNELS_CUDA_ROWS_H_
#define SLUICE_KERNELS_CUDA_ROWS_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/step_meta.h"

namespace sluice::cuda {

// x (rows, hidden) fp32 = table's rows of the step's tokens. `last_sampled` (slots).
cudaError_t LaunchEmbed(const StepHeader* meta, const __nv_bfloat16* table, int64_t vocab,
                        int64_t hidden, const int32_t* last_sampled, float* x, int grid_rows,
                        cudaStream_t stream);

// y (rows, hidden) bf16 = RMSNorm(x; weight), for rows first .. first + grid_rows - 1 of the step.
cudaError_t LaunchRmsNorm(const StepHeader* meta, int first, const float* x, const float* weight,
                          int64_t hidden, float eps, __nv_bfloat16* y, int grid_rows,
                          cudaStream_t stream);

// Row i of y is the row of x that the step's logit row `first + i` names.
cudaError_t LaunchRmsNormGather(const StepHeader* meta, int first, const float* x,
                                const float* weight, int64_t hidden, float eps, __nv_bfloat16* y,
                                int grid_rows, cudaStream_t stream);

// y (rows, intermediate) = silu(gate) * up; in (rows, 2 * padded intermediate), in blocks of
// kGateUpBlock columns.
cudaError_t LaunchSwiGlu(const __nv_bfloat16* in, int64_t in_stride, int64_t intermediate,
                         __nv_bfloat16* y, int rows, cudaStream_t stream);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_ROWS_H_
