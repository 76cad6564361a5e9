// A product of two tiles of 64 rows along K, both with K along rows, by four warps of tensor-core
// products: warp w holds rows 16 w .. 16 w + 15 of the result as Mma's accumulators (device.cuh).
#ifndef SLUICE_KERNELS_CUDA_TILE_PRODUCT_CUH_
#define SLUICE_KERNELS_CUDA_TILE_PRODUCT_CUH_

#include "kernels/cuda/device.cuh"

namespace sluice::cuda {

inline constexpr int kTileRows = 64;
inline constexpr int kTileThreads = 128;
inline constexpr int kTileColumns = 64;  // of K, at a time
inline constexpr int kRowTileBytes = kTileRows * kTileColumns * 2;

// Stages of both operands.
struct TileStages {
  char at[2][2][kRowTileBytes];
};

// Rows of one operand; those past `rows` and columns past the product's K count as zeros.
struct TileRows {
  const bf16* first = nullptr;
  int64_t stride = 0;  // a multiple of 8
  int rows = 0;
};

// acc += a b^T over `k` columns, a multiple of 8. kCausal: what lies above the diagonal stays as it
// is, in blocks of 16. Holds barriers for all threads; stages are free after it.
template <bool kCausal>
__device__ __forceinline__ void MultiplyTiles(const TileRows& a, const TileRows& b, int k,
                                              TileStages* stages, float (&acc)[8][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int m = lane / 8, r = lane % 8;  // matrix and row that the lane addresses in ldmatrix
  const uint32_t shared = SharedAddress(stages);
  const auto at = [](int row, int chunk) { return row * 128 + ((chunk ^ row) & 7) * 16; };
  const auto fill = [&](int first) {
    if (first < k) {
      const uint32_t stage = shared + first / kTileColumns % 2 * 2 * kRowTileBytes;
#pragma unroll
      for (int i = threadIdx.x; i < kTileRows * 8; i += kTileThreads) {
        const int row = i / 8, chunk = i % 8, c = first + chunk * 8;
        const bool in_a = row < a.rows && c < k, in_b = row < b.rows && c < k;
        CopyAsync16(stage + at(row, chunk), a.first + (in_a ? row * a.stride + c : 0), in_a);
        CopyAsync16(stage + kRowTileBytes + at(row, chunk),
                    b.first + (in_b ? row * b.stride + c : 0), in_b);
      }
    }
    CommitCopies();
  };
  fill(0);
  for (int first = 0; first < k; first += kTileColumns) {
    fill(first + kTileColumns);
    WaitCopies<1>();
    __syncthreads();
    const uint32_t a_tile = shared + first / kTileColumns % 2 * 2 * kRowTileBytes;
    const uint32_t b_tile = a_tile + kRowTileBytes;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint32_t left[4];
      LoadMatrix4(left, a_tile + at(warp * 16 + m % 2 * 8 + r, step * 2 + m / 2));
#pragma unroll
      for (int j = 0; j < 8; j += 2) {
        if (kCausal && j / 2 > warp) continue;
        uint32_t right[4];
        LoadMatrix4(right, b_tile + at((j + m / 2) * 8 + r, step * 2 + m % 2));
        Mma(acc[j], left[0], left[1], left[2], left[3], right[0], right[1]);
        Mma(acc[j + 1], left[0], left[1], left[2], left[3], right[2], right[3]);
      }
    }
    __syncthreads();
  }
}

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_TILE_PRODUCT_CUH_
