#include "kernels/cuda/device.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/row_ops.h"

namespace sluice::cuda {
namespace {

// One block a row.
template <bool kGather>
__global__ void __launch_bounds__(kNormThreads)
    RmsNormKernel(const StepHeader* meta, int first, const float* x, const float* weight,
                  int hidden, float eps, bf16* y) {
  WaitForPredecessor();
  const int i = blockIdx.x;
  int row = i;
  if constexpr (kGather) {
    if (first + i >= meta->num_logits) return;
    row = MetaArray<LogitMeta>(meta, meta->logits)[first + i].row;
  } else {
    row = first + i;
    if (row >= meta->num_rows) return;
  }
  const int64_t stride = Stride(hidden);
  const float* in = x + row * stride;
  __shared__ float partial[kNormThreads / 32];
  const float scale = RowScale(in, hidden, eps, partial);
  bf16* out = y + (kGather ? i : row) * stride;
  for (int c = threadIdx.x * 4; c < stride; c += kNormThreads * 4) {
    const float4 v = *reinterpret_cast<const float4*>(in + c);
    const float4 w = *reinterpret_cast<const float4*>(weight + c);
    *reinterpret_cast<uint2*>(out + c) = NormFour(v, w, scale);
  }
}

}  // namespace

cudaError_t LaunchRmsNorm(const StepHeader* meta, int first, const float* x, const float* weight,
                          int64_t hidden, float eps, bf16* y, int grid_rows, cudaStream_t stream) {
  return Launch(RmsNormKernel<false>, grid_rows, kNormThreads, 0, stream, 1, meta, first, x, weight,
                hidden, eps, y);
}

cudaError_t LaunchRmsNormGather(const StepHeader* meta, int first, const float* x,
                                const float* weight, int64_t hidden, float eps, bf16* y,
                                int grid_rows, cudaStream_t stream) {
  return Launch(RmsNormKernel<true>, grid_rows, kNormThreads, 0, stream, 1, meta, first, x, weight,
                hidden, eps, y);
}

}  // namespace sluice::cuda
