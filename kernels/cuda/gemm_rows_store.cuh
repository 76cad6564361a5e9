// Code that the products of decode rows share: the cuts of K, and the end of a sum.
#ifndef SLUICE_KERNELS_CUDA_GEMM_ROWS_STORE_CUH_
#define SLUICE_KERNELS_CUDA_GEMM_ROWS_STORE_CUH_

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_rows.h"

namespace sluice::cuda {

inline constexpr int kGemmRowsSlices = 8;  // of K, whose sums are added in their order

// The sums for row `row`, columns n .. n + 3 of the product; for kSwiGlu `up` belongs to the same
// columns. Returns y, for kAdd alone.
template <RowStore kStore>
__device__ __forceinline__ float4 StoreFour(const GemmRowsArgs& a, int row, int n, float4 sum,
                                            float4 up) {
  const int64_t at = row * a.y_stride + n;
  if constexpr (kStore == RowStore::kBf16) {
    *reinterpret_cast<uint2*>(static_cast<bf16*>(a.y) + at) =
        make_uint2(PackBf16(sum.x, sum.y), PackBf16(sum.z, sum.w));
  } else if constexpr (kStore == RowStore::kAdd) {
    float4* y = reinterpret_cast<float4*>(static_cast<float*>(a.y) + at);
    const float4 old = *y;
    sum = make_float4(old.x + sum.x, old.y + sum.y, old.z + sum.z, old.w + sum.w);
    *y = sum;
  } else if constexpr (kStore == RowStore::kFloat) {
    *reinterpret_cast<float4*>(static_cast<float*>(a.y) + at) = sum;
  } else {
    *reinterpret_cast<uint2*>(static_cast<bf16*>(a.y) + at) =
        make_uint2(PackBf16(Silu(sum.x) * up.x, Silu(sum.y) * up.y),
                   PackBf16(Silu(sum.z) * up.z, Silu(sum.w) * up.w));
  }
  return sum;
}

__device__ __forceinline__ float4 Scaled(const float4& x, float scale) {
  return make_float4(x.x * scale, x.y * scale, x.z * scale, x.w * scale);
}

__device__ __forceinline__ void Accumulate(float4& sum, const float4& x) {
  sum.x += x.x;
  sum.y += x.y;
  sum.z += x.z;
  sum.w += x.w;
}

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_GEMM_ROWS_STORE_CUH_
