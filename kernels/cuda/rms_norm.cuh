// RMSNorm of one row by one block, in an order of summation that the width alone fixes.
#ifndef SLUICE_KERNELS_CUDA_RMS_NORM_CUH_
#define SLUICE_KERNELS_CUDA_RMS_NORM_CUH_

#include "kernels/cuda/device.cuh"

namespace sluice::cuda {

inline constexpr int kNormThreads = 256;

// 1 / sqrt(mean(x^2) + eps) of x (hidden), padded with zeros; every thread gets the same bits.
// Holds a barrier. partial (kNormThreads / 32) in shared memory. The block has kNormThreads
// threads.
__device__ __forceinline__ float RowScale(const float* x, int hidden, float eps, float* partial) {
  float sum = 0.0f;
  for (int c = threadIdx.x * 4; c < hidden; c += kNormThreads * 4) {
    const float4 v = *reinterpret_cast<const float4*>(x + c);
    sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  sum = WarpSum(sum);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  float total = 0.0f;
#pragma unroll
  for (int w = 0; w < kNormThreads / 32; ++w) total += partial[w];
  return rsqrtf(total / hidden + eps);
}

__device__ __forceinline__ uint2 NormFour(float4 x, float4 weight, float scale) {
  return make_uint2(PackBf16(x.x * scale * weight.x, x.y * scale * weight.y),
                    PackBf16(x.z * scale * weight.z, x.w * scale * weight.w));
}

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_RMS_NORM_CUH_
