// Without Hopper's bulk copies and warpgroup products. Weights are the left operand, tokens the
// right. A block takes 16 or 32 rows of W by up to 64 of x, each of its 8 warps a slice of K.
// Operands go from memory to registers 16 bytes a lane: lane t of a quad holds elements 8 t .. 8 t
// + 7 of every 32 along K, of W as of x, which is the products' own order up to a permutation of K.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_rows.h"
#include "kernels/cuda/gemm_rows_store.cuh"
#include "kernels/cuda/layout.h"

namespace sluice::cuda {
namespace {

constexpr int kWarps = kGemmRowsSlices;
constexpr int kThreads = kWarps * 32;
constexpr int kStep = 32;  // elements along K

// Tiles of 16 rows of W and of 8 rows of x.
template <int kTilesW, int kTilesX>
struct Tiling {
  static constexpr int rows_w = kTilesW * 16, rows_x = kTilesX * 8;
  static constexpr int sum_stride = rows_w + 4;  // of a token's sums: free of bank conflicts
  static constexpr int shared_bytes = kWarps * rows_x * sum_stride * 4;
};

template <int kTilesW>
struct Weights {
  uint4 low[kTilesW], high[kTilesW];  // rows g and g + 8 of each tile
};

template <int kTilesW, int kTilesX, RowStore kStore>
__global__ void __launch_bounds__(kThreads)
    PortableGemmRowsKernel(const __grid_constant__ GemmRowsArgs a) {
  using T = Tiling<kTilesW, kTilesX>;
  extern __shared__ __align__(16) float sums[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int n0 = blockIdx.x * T::rows_w, row0 = blockIdx.y * T::rows_x;
  const int k_tiles = static_cast<int>(a.x_stride / 64);
  const int slice = (k_tiles + kWarps - 1) / kWarps * 64;
  const int begin = warp * slice;
  const int end = min(begin + slice, static_cast<int>(a.x_stride));
  WaitForPredecessor();

  const auto load_w = [&](Weights<kTilesW>& w, int k) {
#pragma unroll
    for (int i = 0; i < kTilesW; ++i) {
      const int n = n0 + i * 16 + g;
      const bf16* p = a.w + static_cast<int64_t>(n) * a.x_stride + k + t * 8;
      w.low[i] = n < a.n ? LoadStream(p) : make_uint4(0, 0, 0, 0);
      w.high[i] = n + 8 < a.n ? LoadStream(p + 8 * a.x_stride) : make_uint4(0, 0, 0, 0);
    }
  };
  float acc[kTilesW][kTilesX][4] = {};
  Weights<kTilesW> w;
  if (begin < end) load_w(w, begin);
  for (int k = begin; k < end; k += kStep) {
    Weights<kTilesW> next = {};
    if (k + kStep < end) load_w(next, k + kStep);
#pragma unroll
    for (int j = 0; j < kTilesX; ++j) {
      const int row = row0 + j * 8 + g;
      const uint4 x = row < a.rows
                          ? *reinterpret_cast<const uint4*>(a.x + row * a.x_stride + k + t * 8)
                          : make_uint4(0, 0, 0, 0);
#pragma unroll
      for (int i = 0; i < kTilesW; ++i) {
        Mma(acc[i][j], w.low[i].x, w.high[i].x, w.low[i].y, w.high[i].y, x.x, x.y);
        Mma(acc[i][j], w.low[i].z, w.high[i].z, w.low[i].w, w.high[i].w, x.z, x.w);
      }
    }
    w = next;
  }

  float* mine = sums + warp * T::rows_x * T::sum_stride;
#pragma unroll
  for (int i = 0; i < kTilesW; ++i) {
#pragma unroll
    for (int j = 0; j < kTilesX; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e)
        mine[(j * 8 + 2 * t + e % 2) * T::sum_stride + i * 16 + g + e / 2 * 8] = acc[i][j][e];
    }
  }
  __syncthreads();
  const auto total = [&](int at) {
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int s = 0; s < kWarps; ++s)
      Accumulate(sum, *reinterpret_cast<const float4*>(sums + s * T::rows_x * T::sum_stride + at));
    return sum;
  };
  constexpr bool kPairs = kStore == RowStore::kSwiGlu;  // a block of gate rows, then one of up rows
  static_assert(!kPairs || (kTilesW == 2 && kGateUpBlock == 16));
  constexpr int kOut = (kPairs ? T::rows_w / 2 : T::rows_w) / 4;
  for (int i = threadIdx.x; i < T::rows_x * kOut; i += kThreads) {
    const int token = i / kOut, c = i % kOut * 4;
    const int n = (kPairs ? n0 / 2 : n0) + c;
    if (row0 + token >= a.rows || n >= a.n_valid) continue;
    const int at = token * T::sum_stride + c;
    StoreFour<kStore>(a, row0 + token, n, total(at), kPairs ? total(at + kGateUpBlock) : float4{});
  }
}

template <int kTilesW, int kTilesX, RowStore kStore>
cudaError_t LaunchStore(const GemmRowsArgs& a, cudaStream_t stream) {
  using T = Tiling<kTilesW, kTilesX>;
  const auto kernel = PortableGemmRowsKernel<kTilesW, kTilesX, kStore>;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, T::shared_bytes);
  if (prepared != cudaSuccess) return prepared;
  const dim3 grid((a.n + T::rows_w - 1) / T::rows_w, (a.rows + T::rows_x - 1) / T::rows_x);
  return Launch(kernel, grid, kThreads, T::shared_bytes, stream, 1, a);
}

template <RowStore kStore>
cudaError_t LaunchRows(const GemmRowsArgs& a, cudaStream_t stream) {
  // Few rows of W: blocks of half the rows, to have one for each multiprocessor.
  constexpr int kNarrow = 4096;
  if constexpr (kStore != RowStore::kSwiGlu) {
    if (a.n <= kNarrow && a.rows <= 8) return LaunchStore<1, 1, kStore>(a, stream);
    if (a.n <= kNarrow && a.rows <= 32) return LaunchStore<1, 4, kStore>(a, stream);
  }
  if (a.rows <= 8) return LaunchStore<2, 1, kStore>(a, stream);
  if (a.rows <= 32) return LaunchStore<2, 4, kStore>(a, stream);
  return LaunchStore<2, 8, kStore>(a, stream);
}

}  // namespace

cudaError_t LaunchPortableGemmRows(const GemmRowsArgs& a, cudaStream_t stream) {
  switch (a.store) {
    case RowStore::kBf16:
      return LaunchRows<RowStore::kBf16>(a, stream);
    case RowStore::kAdd:
      return LaunchRows<RowStore::kAdd>(a, stream);
    case RowStore::kFloat:
      return LaunchRows<RowStore::kFloat>(a, stream);
    case RowStore::kSwiGlu:
      return LaunchRows<RowStore::kSwiGlu>(a, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace sluice::cuda
