// On Hopper. Weights are the left operand, tokens the right. A block is a producer warp, which
// keeps stages of tiles on their way by bulk copies, and warpgroups of 64 rows of W by kTokens rows
// of x each, side by side along W, along x or along K. A cluster of blocks shares tiles by
// multicast, along W and along x, and shares K: then its slices are added through distributed
// shared memory. Weights do not depend on the step, so the first of them are under way before the
// predecessor ends.
#include <cooperative_groups.h>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_rows.h"
#include "kernels/cuda/gemm_rows_store.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/tma.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace sluice::cuda {
namespace {

namespace cg = cooperative_groups;

constexpr int kSlices = kGemmRowsSlices;
constexpr int kTileK = 64;  // 128 bytes

// Warpgroups of a block along W, x and K; blocks of a cluster that share tiles of x (they lie along
// W), tiles of W (along x), and K; blocks a multiprocessor.
template <int kTokens, int kGroupsW, int kGroupsX, int kGroupsK, int kClusterW, int kClusterX,
          int kClusterK, int kStages, int kBlocks>
struct Tiling {
  static constexpr int tokens = kTokens;
  static constexpr int groups_w = kGroupsW, groups_x = kGroupsX, groups_k = kGroupsK;
  static constexpr int cluster_w = kClusterW, cluster_x = kClusterX, cluster_k = kClusterK;
  static constexpr int stages = kStages, blocks = kBlocks;
};

template <class T>
struct Config {
  static constexpr int kConsumers = T::groups_w * T::groups_x * T::groups_k * 128;
  static constexpr int kProducer = kConsumers,
                       kScaler = kConsumers + 32;  // the first threads of a warp each
  static constexpr int kThreads = kConsumers + 64;
  static constexpr int kRowsW = T::groups_w * 64, kRowsX = T::groups_x * T::tokens;
  static constexpr int kStageBytes = (kRowsW + kRowsX) * 128;
  static constexpr int kCluster = T::cluster_w * T::cluster_x * T::cluster_k;
  // K is shared by so many warpgroups, each of so many slices.
  static constexpr int kUnits = T::cluster_k * T::groups_k;
  static constexpr int kUnitSlices = kSlices / kUnits;
  // Sums that a block hands on: of each of its slices, or their total where it has them all.
  static constexpr int kKept = kUnits == 1 ? 1 : kUnitSlices;
  static constexpr int kParts = T::groups_k * kKept;
  static constexpr int kSumStride = kRowsW + 4;  // of a token's sums: free of bank conflicts
  static constexpr int kPartFloats = kRowsX * kSumStride;
  static constexpr int kSumBytes = kParts * kPartFloats * 4;
  static constexpr int kTileBytes =
      T::stages * kStageBytes > kSumBytes ? T::stages* kStageBytes : kSumBytes;
  static constexpr int kSharedBytes = 1024 + kTileBytes + T::stages * 16 + kRowsX * 4;
  static_assert(kSharedBytes <= 227 * 1024);
  static_assert(T::stages % T::groups_k == 0);  // a stage is always the same warpgroups'
};

// The place of a block in its cluster and in the product.
template <class T>
struct Place {
  using C = Config<T>;
  __device__ __forceinline__ explicit Place(const GemmRowsArgs& a) {
    rank = blockIdx.x % C::kCluster;
    in_w = rank % T::cluster_w;
    in_x = rank / T::cluster_w % T::cluster_x;
    in_k = rank / (T::cluster_w * T::cluster_x);
    n0 = (blockIdx.x / C::kCluster * T::cluster_w + in_w) * C::kRowsW;
    row0 = (blockIdx.y * T::cluster_x + in_x) * C::kRowsX;
    const int k_tiles = static_cast<int>(a.x_stride / kTileK);
    slice = (k_tiles + kSlices - 1) / kSlices;
  }
  int rank, in_w, in_x, in_k;
  int n0, row0;
  int slice;  // tiles of K; past K they are zeros
};

// scales (kRowsX) of the block's tokens, which their sums are multiplied by; one warp, a lane a
// token.
template <class T>
__device__ __forceinline__ void ScaleRows(const GemmRowsArgs& a, int row0, float* scales) {
  const int count = static_cast<int>(a.x_stride / kSquaresColumns);
  for (int i = threadIdx.x % 32; i < Config<T>::kRowsX && row0 + i < a.rows; i += 32) {
    const float* squares = a.squares + static_cast<int64_t>(row0 + i) * count;
    float sum = 0.0f;
#pragma unroll 32
    for (int c = 0; c < count; ++c) sum += squares[c];
    scales[i] = rsqrtf(sum / a.norm_width + a.norm_eps);
  }
}

// Stores what the next product needs of columns n .. n + 3 of a row of y; half a warp has
// kSquaresColumns of one row.
__device__ __forceinline__ void StoreForNorm(const GemmRowsArgs& a, int row, int n, bool valid,
                                             const float4& y) {
  float sum = 0.0f;
  if (valid) {
    sum = y.x * y.x + y.y * y.y + y.z * y.z + y.w * y.w;
    const float4 weight = *reinterpret_cast<const float4*>(a.next_norm + n);
    *reinterpret_cast<uint2*>(a.next_x + row * a.y_stride + n) = NormFour(y, weight, 1.0f);
  }
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int other = 8; other > 0; other /= 2)
    sum += __shfl_xor_sync(0xffffu << (lane & 16), sum, other);
  if (lane % 16 == 0 && valid)
    a.next_squares[row * (a.y_stride / kSquaresColumns) + n / kSquaresColumns] = sum;
}

// Keeps the stages full; one thread. Step `it` is tile it / groups_k of warpgroup it % groups_k.
template <class T>
__device__ __forceinline__ void Produce(const Place<T>& p, const CUtensorMap* w,
                                        const CUtensorMap* x, uint32_t stages, uint32_t full,
                                        uint32_t empty) {
  using C = Config<T>;
  constexpr int kBoxW = C::kRowsW / T::cluster_x, kBoxX = C::kRowsX / T::cluster_w;
  const int steps = p.slice * C::kUnitSlices * T::groups_k;
  int ranks_w = 0, ranks_x = 0;
#pragma unroll
  for (int i = 0; i < T::cluster_x; ++i)
    ranks_w |= 1 << ((p.in_k * T::cluster_x + i) * T::cluster_w + p.in_w);
#pragma unroll
  for (int i = 0; i < T::cluster_w; ++i)
    ranks_x |= 1 << ((p.in_k * T::cluster_x + p.in_x) * T::cluster_w + i);
  const auto column = [&](int it) {
    const int unit = p.in_k * T::groups_k + it % T::groups_k;
    return (unit * C::kUnitSlices * p.slice + it / T::groups_k) * kTileK;
  };
  const auto copy_w = [&](int it, int stage) {
    const uint32_t to = stages + stage * C::kStageBytes + p.in_x * kBoxW * 128;
    if constexpr (T::cluster_x == 1) {
      CopyBox(to, w, column(it), p.n0, full + stage * 8);
    } else {
      CopyBoxToRanks(to, w, column(it), p.n0 + p.in_x * kBoxW, full + stage * 8, ranks_w);
    }
  };
  const auto copy_x = [&](int it, int stage) {
    const uint32_t to = stages + stage * C::kStageBytes + C::kRowsW * 128 + p.in_w * kBoxX * 128;
    if constexpr (T::cluster_w == 1) {
      CopyBox(to, x, column(it), p.row0, full + stage * 8);
    } else {
      CopyBoxToRanks(to, x, column(it), p.row0 + p.in_w * kBoxX, full + stage * 8, ranks_x);
    }
  };
  const int first = min(T::stages, steps);
  for (int it = 0; it < first; ++it) {
    ArriveExpecting(full + it * 8, C::kStageBytes);
    copy_w(it, it);
  }
  WaitForPredecessor();
  for (int it = 0; it < first; ++it) copy_x(it, it);
  int stage = 0, parity = 0;
  for (int it = first; it < steps; ++it) {
    WaitBarrier(empty + stage * 8, parity);
    ArriveExpecting(full + stage * 8, C::kStageBytes);
    copy_w(it, stage);
    copy_x(it, stage);
    if (++stage == T::stages) {
      stage = 0;
      parity ^= 1;
    }
  }
}

// Tells the blocks that fill this block's stages that one is free; a block a thread of the group.
template <class T>
__device__ __forceinline__ void Release(const Place<T>& p, uint32_t empty, int thread) {
  if constexpr (T::cluster_w * T::cluster_x == 1) {
    if (thread == 0) ArriveAt(empty);
  } else {
    const int first = p.in_k * T::cluster_x * T::cluster_w;
    if (thread < T::cluster_w) {
      ArriveAtRank(empty, first + p.in_x * T::cluster_w + thread);
    } else if (thread < T::cluster_w + T::cluster_x && thread - T::cluster_w != p.in_x) {
      ArriveAtRank(empty, first + (thread - T::cluster_w) * T::cluster_w + p.in_w);
    }
  }
}

template <class T, RowStore kStore>
__global__ void __launch_bounds__(Config<T>::kThreads, T::blocks)
    GemmRowsKernel(const __grid_constant__ GemmRowsArgs a,
                   const __grid_constant__ CUtensorMap map_w,
                   const __grid_constant__ CUtensorMap map_x) {
#if SLUICE_HOPPER
  using C = Config<T>;
  extern __shared__ char unaligned[];
  char* shared = unaligned + (1024 - SharedAddress(unaligned) % 1024) % 1024;
  const uint32_t stages = SharedAddress(shared), full = stages + C::kTileBytes,
                 empty = full + T::stages * 8;
  float* scales = reinterpret_cast<float*>(shared + C::kTileBytes + T::stages * 16);
  const int thread = threadIdx.x, group = thread / 128;
  const Place<T> p(a);
  if (thread == C::kProducer) {
    PrefetchMap(&map_w);
    PrefetchMap(&map_x);
  }
  if (thread == 0) {
    for (int i = 0; i < T::stages; ++i) {
      InitBarrier(full + i * 8, 1);
      InitBarrier(empty + i * 8, T::groups_w * T::groups_x * (T::cluster_w + T::cluster_x - 1));
    }
    FenceBarrierInit();
  }
  cg::cluster_group cluster = cg::this_cluster();
  if constexpr (C::kCluster > 1) {
    cluster.sync();
  } else {
    __syncthreads();
  }

  const int group_k = group % T::groups_k, group_w = group / T::groups_k % T::groups_w,
            group_x = group / (T::groups_k * T::groups_w);
  constexpr int kAcc = T::tokens / 2;
  float kept[C::kKept][kAcc];
  if (thread >= C::kScaler) {
    WaitForPredecessor();
    if (a.squares != nullptr) ScaleRows<T>(a, p.row0, scales);
  } else if (thread >= C::kProducer) {
    if (thread == C::kProducer) Produce<T>(p, &map_w, &map_x, stages, full, empty);
    WaitForPredecessor();
  } else {
    WaitForPredecessor();
    float acc[kAcc];
    int stage = group_k, parity = 0, before = -1;
    const auto take_slice = [&]() {
      for (int i = 0; i < p.slice; ++i) {
        WaitBarrier(full + stage * 8, parity);
        const uint32_t at = stages + stage * C::kStageBytes;
        const uint64_t w = SwizzledTile(at + group_w * 64 * 128),
                       x = SwizzledTile(at + (C::kRowsW + group_x * T::tokens) * 128);
        WgmmaFence();
#pragma unroll
        for (int step = 0; step < kTileK / 16; ++step)
          Wgmma<T::tokens>::Run(acc, w + step * 2, x + step * 2, step > 0 || i > 0);
        WgmmaCommit();
        WgmmaWait<1>();
        // The products of the tile before are done.
        if (before >= 0) Release<T>(p, empty + before * 8, thread % 128);
        before = stage;
        stage += T::groups_k;
        if (stage >= T::stages) {
          stage -= T::stages;
          parity ^= 1;
        }
      }
      WgmmaWait<0>();
    };
    if constexpr (C::kUnits == 1) {
#pragma unroll
      for (int i = 0; i < kAcc; ++i) kept[0][i] = 0.0f;
#pragma unroll 1
      for (int s = 0; s < kSlices; ++s) {
        take_slice();
#pragma unroll
        for (int i = 0; i < kAcc; ++i) kept[0][i] += acc[i];
      }
    } else {
#pragma unroll
      for (int s = 0; s < C::kUnitSlices; ++s) {
        take_slice();
#pragma unroll
        for (int i = 0; i < kAcc; ++i) kept[s][i] = acc[i];
      }
    }
  }
  // No stage is read or filled any more.
  __syncthreads();
  float* sums = reinterpret_cast<float*>(shared);
  if (thread < C::kConsumers) {
    const int warp = thread % 128 / 32, g = thread % 32 / 4, t = thread % 4;
#pragma unroll
    for (int s = 0; s < C::kKept; ++s) {
      float* part = sums + (group_k * C::kKept + s) * C::kPartFloats;
#pragma unroll
      for (int i = 0; i < kAcc; ++i) {
        const int token = group_x * T::tokens + i / 4 * 8 + 2 * t + i % 2;
        part[token * C::kSumStride + group_w * 64 + warp * 16 + g + i % 4 / 2 * 8] = kept[s][i];
      }
    }
  }
  if constexpr (C::kCluster > 1) {
    cluster.sync();
  } else {
    __syncthreads();
  }
  const float* blocks[T::cluster_k];
#pragma unroll
  for (int b = 0; b < T::cluster_k; ++b) {
    blocks[b] = T::cluster_k == 1 ? sums
                                  : cluster.map_shared_rank(
                                        sums, (b * T::cluster_x + p.in_x) * T::cluster_w + p.in_w);
  }
  const auto total = [&](int at) {
    // In the order of the slices.
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int b = 0; b < T::cluster_k; ++b) {
#pragma unroll
      for (int part = 0; part < C::kParts; ++part)
        Accumulate(sum, *reinterpret_cast<const float4*>(blocks[b] + at + part * C::kPartFloats));
    }
    return sum;
  };
  constexpr int kBlock = static_cast<int>(kGateUpBlock);
  constexpr int kOut = (kStore == RowStore::kSwiGlu ? C::kRowsW / 2 : C::kRowsW) / 4;
  constexpr int kEach = C::kRowsX * kOut / T::cluster_k;
  for (int i = p.in_k * kEach + thread; i < (p.in_k + 1) * kEach; i += C::kThreads) {
    const int token = i / kOut, c = i % kOut * 4;
    const int n = (kStore == RowStore::kSwiGlu ? p.n0 / 2 : p.n0) + c;
    const bool valid = p.row0 + token < a.rows && n < a.n_valid;
    // Blocks of gate rows and of up rows alternate.
    const int in_w = kStore == RowStore::kSwiGlu ? c / kBlock * 2 * kBlock + c % kBlock : c;
    const int at = token * C::kSumStride + in_w;
    float4 y = {};
    if (valid) {
      const float scale = a.squares != nullptr ? scales[token] : 1.0f;
      y = StoreFour<kStore>(
          a, p.row0 + token, n, Scaled(total(at), scale),
          kStore == RowStore::kSwiGlu ? Scaled(total(at + kBlock), scale) : float4{});
    }
    if constexpr (kStore == RowStore::kAdd) {
      static_assert(kEach % 16 == 0 && kOut % 16 == 0);
      if (a.next_norm != nullptr) StoreForNorm(a, p.row0 + token, n, valid, y);
    }
  }
  // No block leaves while another reads its sums.
  if constexpr (T::cluster_k > 1) cluster.sync();
#endif
}

template <class T, RowStore kStore>
cudaError_t LaunchStore(const GemmRowsArgs& a, cudaStream_t stream) {
  using C = Config<T>;
  const auto kernel = GemmRowsKernel<T, kStore>;
  static const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, C::kSharedBytes);
  if (prepared != cudaSuccess) return prepared;
  CUtensorMap w, x;
  cudaError_t error = MakeTensorMap(a.w, a.n, a.x_stride, C::kRowsW / T::cluster_x, &w);
  if (error == cudaSuccess)
    error = MakeTensorMap(a.x, a.rows, a.x_stride, C::kRowsX / T::cluster_w, &x);
  if (error != cudaSuccess) return error;
  constexpr int kW = C::kRowsW * T::cluster_w, kX = C::kRowsX * T::cluster_x;
  const dim3 grid(C::kCluster * ((a.n + kW - 1) / kW), (a.rows + kX - 1) / kX);
  return Launch(kernel, grid, C::kThreads, C::kSharedBytes, stream, C::kCluster, a, w, x);
}

template <class T>
cudaError_t LaunchTiling(const GemmRowsArgs& a, cudaStream_t stream) {
  switch (a.store) {
    case RowStore::kBf16:
      return LaunchStore<T, RowStore::kBf16>(a, stream);
    case RowStore::kAdd:
      return LaunchStore<T, RowStore::kAdd>(a, stream);
    case RowStore::kFloat:
      return LaunchStore<T, RowStore::kFloat>(a, stream);
    case RowStore::kSwiGlu:
      return LaunchStore<T, RowStore::kSwiGlu>(a, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

// Up to this many rows of W, few tiles are made many by cutting K, or x finer.
constexpr int kNarrow = 4096;
// Up to this many, a tile has a multiprocessor for itself.
constexpr int kMiddle = 132 * 64;

bool GemmRowsTakesNorms() { return HasHopperCode(); }

int32_t LongestShortPrompt() { return HasHopperCode() ? 64 : 0; }

cudaError_t LaunchGemmRows(const GemmRowsArgs& a, cudaStream_t stream) {
  if (!HasHopperCode()) return LaunchPortableGemmRows(a, stream);
  const bool narrow = a.n <= kNarrow, middle = a.n <= kMiddle;
  if (a.rows <= 8) {
    return narrow   ? LaunchTiling<Tiling<8, 1, 1, 2, 1, 1, 4, 12, 2>>(a, stream)
           : middle ? LaunchTiling<Tiling<8, 1, 1, 4, 1, 1, 1, 24, 1>>(a, stream)
                    : LaunchTiling<Tiling<8, 1, 1, 1, 1, 1, 1, 12, 2>>(a, stream);
  }
  if (a.rows <= 16) {
    return narrow   ? LaunchTiling<Tiling<16, 1, 1, 2, 1, 1, 4, 10, 2>>(a, stream)
           : middle ? LaunchTiling<Tiling<16, 1, 1, 4, 1, 1, 1, 20, 1>>(a, stream)
                    : LaunchTiling<Tiling<16, 1, 1, 1, 1, 1, 1, 10, 2>>(a, stream);
  }
  if (a.rows <= 32) {
    return narrow   ? LaunchTiling<Tiling<32, 1, 1, 1, 1, 1, 4, 8, 2>>(a, stream)
           : middle ? LaunchTiling<Tiling<32, 1, 1, 2, 1, 1, 1, 16, 1>>(a, stream)
                    : LaunchTiling<Tiling<32, 1, 1, 1, 1, 1, 1, 8, 2>>(a, stream);
  }
  if (a.rows <= 64) {
    return narrow   ? LaunchTiling<Tiling<64, 1, 1, 1, 1, 1, 4, 6, 2>>(a, stream)
           : middle ? LaunchTiling<Tiling<64, 1, 1, 1, 1, 1, 1, 12, 1>>(a, stream)
                    : LaunchTiling<Tiling<64, 1, 1, 1, 1, 1, 1, 6, 2>>(a, stream);
  }
  if (a.rows <= 128) {
    return narrow   ? LaunchTiling<Tiling<32, 1, 1, 4, 1, 2, 1, 16, 1>>(a, stream)
           : middle ? LaunchTiling<Tiling<128, 1, 1, 1, 1, 1, 1, 8, 1>>(a, stream)
                    : LaunchTiling<Tiling<128, 1, 1, 1, 1, 1, 1, 4, 2>>(a, stream);
  }
  if (!narrow) return LaunchTiling<Tiling<128, 2, 1, 1, 1, 2, 1, 6, 1>>(a, stream);
  return a.rows <= 256 ? LaunchTiling<Tiling<64, 1, 1, 4, 1, 2, 1, 12, 1>>(a, stream)
                       : LaunchTiling<Tiling<128, 2, 1, 1, 2, 2, 1, 6, 1>>(a, stream);
}

}  // namespace sluice::cuda
