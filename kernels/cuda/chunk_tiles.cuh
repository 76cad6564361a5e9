// What the kernels that take a state through chunks share: swizzled tiles of 64 tokens, values as
// left operands, outputs on their way to memory.
#ifndef SLUICE_KERNELS_CUDA_CHUNK_TILES_CUH_
#define SLUICE_KERNELS_CUDA_CHUNK_TILES_CUH_

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/step_meta.h"

namespace sluice::cuda {

inline constexpr int kGroupWarps = 4;  // of a warpgroup
inline constexpr int kGroupThreads = kGroupWarps * 32;
inline constexpr int kTileBytes = kChunk * 128;       // 64 rows of 64 columns
inline constexpr int kOutputRowsBytes = kChunk * 32;  // of a warp's outputs: 16 columns a token
inline constexpr int kPassKeys = 256;                 // of dk that a pass over the chunks holds

// The offset of 16-byte chunk `chunk` of a row: tiles of 64 columns lie one after another, swizzled
// as wgmma.cuh says.
__device__ __forceinline__ uint32_t TileAt(int row, int chunk) {
  return chunk / 8 * kTileBytes + row * 128 + ((chunk ^ row) & 7) * 16;
}

// v^T as left operand, 16 columns a warp by 16 tokens at a time: `tile` holds the warpgroup's 64
// columns.
__device__ __forceinline__ void LoadValues(uint32_t tile, uint32_t (&v)[4][4]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % kGroupWarps;
  const int m = lane / 8, r = lane % 8;  // matrix and row that the lane addresses in ldmatrix
#pragma unroll
  for (int s = 0; s < 4; ++s)
    LoadMatrix4Transposed(v[s], tile + TileAt(s * 16 + m / 2 * 8 + r, warp * 2 + m % 2));
}

// A warp's 16 columns of o^T for 64 tokens, as accumulators hold them, to `tokens` rows of `out`,
// of which `columns` exist. Through shared memory (kOutputRowsBytes of the warp's), so that a
// token's columns leave as two 16-byte stores.
__device__ __forceinline__ void StoreOutputs(const float (&o)[32], char* rows, int tokens,
                                             int columns, bf16* out, int64_t out_stride) {
  const int lane = threadIdx.x % 32, m = lane / 8, r = lane % 8;
  const uint32_t rows_at = SharedAddress(rows);
#pragma unroll
  for (int n = 0; n < 8; n += 2) {
    const int token = (n + m / 2) * 8 + r;
    StoreMatrix4Transposed(rows_at + token * 32 + ((m % 2) ^ (token / 4 % 2)) * 16,
                           PackBf16(o[n * 4], o[n * 4 + 1]), PackBf16(o[n * 4 + 2], o[n * 4 + 3]),
                           PackBf16(o[n * 4 + 4], o[n * 4 + 5]),
                           PackBf16(o[n * 4 + 6], o[n * 4 + 7]));
  }
  __syncwarp();
#pragma unroll
  for (int i = lane; i < kChunk * 2; i += 32) {
    const int token = i / 2, half = i % 2;
    if (token < tokens && half * 8 < columns) {
      *reinterpret_cast<uint4*>(out + token * out_stride + half * 8) =
          *reinterpret_cast<const uint4*>(rows + token * 32 + (half ^ (token / 4 % 2)) * 16);
    }
  }
  __syncwarp();
}

// Accumulators as they are, four of a thread after four of the next: where each four is in a piece
// of memory of `kCount` floats for each of a warpgroup's threads.
template <int kCount>
__device__ __forceinline__ void LoadFragments(const float* from, float (&x)[kCount]) {
  const float4* fours = reinterpret_cast<const float4*>(from) + threadIdx.x % kGroupThreads;
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i) {
    const float4 four = fours[i * kGroupThreads];
    x[i * 4] = four.x;
    x[i * 4 + 1] = four.y;
    x[i * 4 + 2] = four.z;
    x[i * 4 + 3] = four.w;
  }
}
template <int kCount>
__device__ __forceinline__ void AddFragments(const float* from, float (&x)[kCount]) {
  float before[kCount];
  LoadFragments(from, before);
#pragma unroll
  for (int i = 0; i < kCount; ++i) x[i] += before[i];
}
template <int kCount>
__device__ __forceinline__ void StoreFragments(const float (&x)[kCount], float* to) {
  float4* fours = reinterpret_cast<float4*>(to) + threadIdx.x % kGroupThreads;
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i)
    fours[i * kGroupThreads] = make_float4(x[i * 4], x[i * 4 + 1], x[i * 4 + 2], x[i * 4 + 3]);
}

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_CHUNK_TILES_CUH_
