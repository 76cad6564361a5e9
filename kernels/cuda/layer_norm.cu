#include "kernels/cuda/device.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/row_ops.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 256;

// Every thread gets the same bits. Holds a barrier.
__device__ __forceinline__ float BlockSum(float x, float (&partial)[kThreads / 32]) {
  x = WarpSum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  float total = 0.0f;
#pragma unroll
  for (int w = 0; w < kThreads / 32; ++w) total += partial[w];
  return total;
}

// One block a row.
template <bool kGather>
__global__ void __launch_bounds__(kThreads)
    LayerNormKernel(const StepHeader* meta, int first, const float* x, const float* weight,
                    const float* bias, int hidden, float eps, bf16* y) {
  WaitForPredecessor();
  const int i = blockIdx.x;
  int row = first + i;
  if constexpr (kGather) {
    if (first + i >= meta->num_logits) return;
    row = MetaArray<LogitMeta>(meta, meta->logits)[first + i].row;
  } else {
    if (row >= meta->num_rows) return;
  }
  const int64_t stride = Stride(hidden);
  const float* in = x + row * stride;
  __shared__ float partial[kThreads / 32];
  float sum = 0.0f;
  for (int c = threadIdx.x; c < hidden; c += kThreads) sum += in[c];
  const float mean = BlockSum(sum, partial) / hidden;
  float squares = 0.0f;
  for (int c = threadIdx.x; c < hidden; c += kThreads)
    squares = fmaf(in[c] - mean, in[c] - mean, squares);
  const float scale = rsqrtf(BlockSum(squares, partial) / hidden + eps);
  bf16* out = y + (kGather ? i : row) * stride;
  for (int c = threadIdx.x; c < stride; c += kThreads) {
    const float value = (in[c] - mean) * scale * weight[c] + bias[c];
    out[c] = __float2bfloat16_rn(c < hidden ? value : 0.0f);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    AddBiasKernel(T* y, int64_t stride, const float* bias, int cols) {
  WaitForPredecessor();
  const int c = blockIdx.y * kThreads + threadIdx.x;
  if (c >= cols) return;
  T* at = y + blockIdx.x * stride + c;
  *at = static_cast<T>(static_cast<float>(*at) + bias[c]);
}

template <class T>
cudaError_t AddBias(T* y, int64_t stride, const float* bias, int64_t cols, int rows,
                    cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const dim3 grid(rows, (cols + kThreads - 1) / kThreads);
  return Launch(AddBiasKernel<T>, grid, kThreads, 0, stream, 1, y, stride, bias, cols);
}

}  // namespace

cudaError_t LaunchLayerNorm(const StepHeader* meta, int first, const float* x, const float* weight,
                            const float* bias, int64_t hidden, float eps, bf16* y, int grid_rows,
                            cudaStream_t stream) {
  return Launch(LayerNormKernel<false>, grid_rows, kThreads, 0, stream, 1, meta, first, x, weight,
                bias, hidden, eps, y);
}

cudaError_t LaunchLayerNormGather(const StepHeader* meta, int first, const float* x,
                                  const float* weight, const float* bias, int64_t hidden, float eps,
                                  bf16* y, int grid_rows, cudaStream_t stream) {
  return Launch(LayerNormKernel<true>, grid_rows, kThreads, 0, stream, 1, meta, first, x, weight,
                bias, hidden, eps, y);
}

cudaError_t LaunchAddBias(bf16* y, int64_t stride, const float* bias, int64_t cols, int rows,
                          cudaStream_t stream) {
  return AddBias(y, stride, bias, cols, rows, stream);
}
cudaError_t LaunchAddBias(float* y, int64_t stride, const float* bias, int64_t cols, int rows,
                          cudaStream_t stream) {
  return AddBias(y, stride, bias, cols, rows, stream);
}

}  // namespace sluice::cuda
