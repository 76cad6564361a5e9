// One token of gated linear attention by its recurrence (arXiv 2312.06635, equation 4), the whole
// mixer of a row in one kernel: short convolution, feature map, low-rank gate, S <- diag(alpha) S +
// k^T v, o = q S, per-head RMSNorm, output gate.
//
// A cluster of up to 8 blocks shares a (row, kv head), a block alone takes it where GPUs have no
// clusters; each block takes tiles of 64 columns of the state through registers, and several blocks
// a multiprocessor hide each other's loads, sums and stores. The order of every sum follows from dk
// and dv alone.
#include <cooperative_groups.h>

#include <utility>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gate.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/mixer.h"

namespace sluice::cuda {
namespace {

namespace cg = cooperative_groups;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTile = 64;  // columns of the state
constexpr int kRowsPerPass =
    2 * kWarps;  // rows that the block reads with one instruction: half a warp a row
constexpr int kMaxCluster = 8;

__host__ __device__ inline int Tiles(int dv) { return (dv + kTile - 1) / kTile; }
inline int ClusterSize(int dv) {
  if (!HasHopperCode()) return 1;
  return Tiles(dv) < kMaxCluster ? Tiles(dv) : kMaxCluster;
}

// The blocks that share a (row, head): a cluster, or a block alone where there are none. Made by
// every thread of each.
class Team {
 public:
#if SLUICE_HOPPER
  // That every block is there is needed only at the end.
  __device__ __forceinline__ Team()
      : cluster_(cg::this_cluster()), started_(cluster_.barrier_arrive()) {}
  __device__ __forceinline__ void WaitUntilStarted() { cluster_.barrier_wait(std::move(started_)); }
  __device__ __forceinline__ void Sync() { cluster_.sync(); }
  __device__ __forceinline__ float* At(float* shared, int rank) {
    return cluster_.map_shared_rank(shared, rank);
  }

 private:
  cg::cluster_group cluster_;
  cg::cluster_group::arrival_token started_;
#else
  __device__ __forceinline__ void WaitUntilStarted() {}
  __device__ __forceinline__ void Sync() { __syncthreads(); }
  __device__ __forceinline__ float* At(float* shared, int) { return shared; }
#endif
};

struct Shared {  // offsets in floats
  int q, k, alpha, v, red, o, squares, total;
};

__host__ __device__ inline Shared SharedLayout(int groups, int dk, int dv, int cluster) {
  const int tiles = (Tiles(dv) + cluster - 1) / cluster;
  Shared s;
  s.q = 0;
  s.k = s.q + groups * dk;
  s.alpha = s.k + dk;
  s.v = s.alpha + dk;
  s.red = s.v + kTile;
  s.o = s.red + kWarps * kTile;
  s.squares = s.o + groups * tiles * kTile;
  s.total = s.squares + groups * kMaxCluster;
  return s;
}

// Input channel `c` of the row after the short convolution, if any. `tail` points at the channel's
// oldest input.
__device__ __forceinline__ float ConvInput(const MixerLaunch& a, float x, const float* weight,
                                           const float* tail, int tail_stride) {
  if (a.taps == 0) return x;
  float sum = 0.0f;
  for (int j = 0; j < a.taps - 1; ++j)
    sum += weight[j] * tail[static_cast<int64_t>(j) * tail_stride];
  sum += weight[a.taps - 1] * x;
  return Silu(sum);
}

__device__ __forceinline__ void AdvanceTail(const MixerLaunch& a, float x, float* tail,
                                            int tail_stride) {
  for (int j = 0; j < a.taps - 2; ++j) {
    tail[static_cast<int64_t>(j) * tail_stride] = tail[static_cast<int64_t>(j + 1) * tail_stride];
  }
  if (a.taps > 1) tail[static_cast<int64_t>(a.taps - 2) * tail_stride] = x;
}

__device__ __forceinline__ float Dot8(const uint4& x, const uint4& y) {
  return LowBf16(x.x) * LowBf16(y.x) + HighBf16(x.x) * HighBf16(y.x) + LowBf16(x.y) * LowBf16(y.y) +
         HighBf16(x.y) * HighBf16(y.y) + LowBf16(x.z) * LowBf16(y.z) +
         HighBf16(x.z) * HighBf16(y.z) + LowBf16(x.w) * LowBf16(y.w) +
         HighBf16(x.w) * HighBf16(y.w);
}

// log2 of key channel `c`'s decay; c counts over all kv heads. Past the rank, the weights' zeros
// cancel what the inputs hold.
__device__ __forceinline__ float GateOf(const MixerLaunch& a, const bf16* low_rank, int c) {
  const uint4* w = reinterpret_cast<const uint4*>(a.gate + c * a.gate_stride);
  const uint4* x = reinterpret_cast<const uint4*>(low_rank);
  float z = a.gate_bias[c];
  for (int r = 0; r < a.rank; r += 16) {
    const uint4 x0 = x[r / 8], x1 = x[r / 8 + 1], w0 = w[r / 8], w1 = w[r / 8 + 1];
    z += Dot8(x0, w0) + Dot8(x1, w1);
  }
  return LogDecay2(z, a.min_log_decay2);
}

// total (kTile) = or += the sum over the block's rows of what its threads hold for their four
// columns.
__device__ __forceinline__ void SumColumns(float4 o, float* red, float* total, bool add) {
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  o.x += __shfl_xor_sync(0xffffffffu, o.x, 16);
  o.y += __shfl_xor_sync(0xffffffffu, o.y, 16);
  o.z += __shfl_xor_sync(0xffffffffu, o.z, 16);
  o.w += __shfl_xor_sync(0xffffffffu, o.w, 16);
  if (lane < 16) *reinterpret_cast<float4*>(red + warp * kTile + lane * 4) = o;
  __syncthreads();
  if (thread < kTile) {
    float sum = add ? total[thread] : 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += red[w * kTile + thread];
    total[thread] = sum;
  }
  __syncthreads();
}

// kPasses: of kRowsPerPass rows, loaded at once. kSingle: one query head a kv head; its sums' order
// is the same for every kPasses.
template <int kPasses, int kBlocks, bool kSingle>
__global__ void __launch_bounds__(kThreads, kBlocks)
    GlaDecodeKernel(const __grid_constant__ MixerLaunch a, int cluster_size) {
  extern __shared__ __align__(16) float shared[];
  const int groups = a.heads / a.kv_heads;
  const Shared at = SharedLayout(groups, a.dk, a.dv, cluster_size);
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int rank = blockIdx.x % cluster_size;
  const int row = blockIdx.x / cluster_size / a.kv_heads;
  const int head = blockIdx.x / cluster_size % a.kv_heads;
  // The block that describes the step was complete before this step's first kernel.
  const bool active = row < a.meta->num_decode;
  const int slot = active ? MetaArray<RowMeta>(a.meta, a.meta->rows)[row].slot : 0;
  float* layer = a.states + slot * a.slot_stride;
  float* state = layer + static_cast<int64_t>(head) * a.dk * a.dv;

  const int sub_row = warp * 2 + lane / 16, sub_col = lane % 16 * 4;
  float4 s[kPasses];
  const auto load = [&](int k0, int col) {
    const float* p = state + static_cast<int64_t>(k0 + sub_row) * a.dv + col + sub_col;
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int k = k0 + sub_row + i * kRowsPerPass;
      s[i] = k < a.dk && col + sub_col < a.dv
                 ? __ldcs(reinterpret_cast<const float4*>(p + static_cast<int64_t>(i) *
                                                                  kRowsPerPass * a.dv))
                 : make_float4(0, 0, 0, 0);
    }
  };
  // The first tile is under way while the projections are still being computed.
  if (active) load(0, rank * kTile);
  Team team;
  WaitForPredecessor();
  if (!active) {  // the whole team
    team.WaitUntilStarted();
    return;
  }

  const bf16* in = a.in + row * a.in_stride;
  const int q_dim = a.heads * a.dk, k_dim = a.kv_heads * a.dk, v_dim = a.kv_heads * a.dv;
  const int q_first = head * groups * a.dk, k_first = head * a.dk;
  for (int i = thread; i < groups * a.dk; i += kThreads) {
    const int c = q_first + i;
    const float x =
        ConvInput(a, __bfloat162float(in[c]), a.conv_q + static_cast<int64_t>(c) * a.taps,
                  layer + a.tail_q + c, q_dim);
    shared[at.q + i] = MapFeature(a.feature_map, x) * a.scale;
  }
  for (int i = thread; i < a.dk; i += kThreads) {
    const int c = k_first + i;
    const float x =
        ConvInput(a, __bfloat162float(in[a.k_offset + c]),
                  a.conv_k + static_cast<int64_t>(c) * a.taps, layer + a.tail_k + c, k_dim);
    shared[at.k + i] = MapFeature(a.feature_map, x);
    shared[at.alpha + i] = Exp2(GateOf(a, in + a.gate_offset, c));
  }

  // Loads what the end will need, one output column a thread if there are enough threads.
  const int local_tiles = (Tiles(a.dv) + cluster_size - 1) / cluster_size;
  const bool one_column = groups == 1 && local_tiles == 1;
  float gate_in = 0.0f, norm_weight = 1.0f;
  if (one_column && thread < kTile && rank * kTile + thread < a.dv) {
    const int column = rank * kTile + thread;
    if (a.output_gate) gate_in = __bfloat162float(in[a.g_offset + head * a.dv + column]);
    if (a.head_norm != nullptr) norm_weight = a.head_norm[column];
  }

  float* red = shared + at.red;
  int local_tile = 0;
  for (int tile = rank; tile < Tiles(a.dv); tile += cluster_size, ++local_tile) {
    const int col = tile * kTile;
    if (thread < kTile) {
      float v = 0.0f;
      if (col + thread < a.dv) {
        const int c = head * a.dv + col + thread;
        const float x = __bfloat162float(in[a.v_offset + c]);
        v = ConvInput(a, x, a.conv_v + static_cast<int64_t>(c) * a.taps, layer + a.tail_v + c,
                      v_dim);
        AdvanceTail(a, x, layer + a.tail_v + c, v_dim);
      }
      shared[at.v + thread] = v;
    }
    __syncthreads();
    float4 o = make_float4(0, 0, 0, 0);
    for (int k0 = 0; k0 < a.dk; k0 += kPasses * kRowsPerPass) {
      if (tile != rank || k0 != 0) load(k0, col);
      const float4 v = *reinterpret_cast<const float4*>(shared + at.v + sub_col);
      float* p = state + static_cast<int64_t>(k0 + sub_row) * a.dv + col + sub_col;
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        const int k = k0 + sub_row + i * kRowsPerPass;
        if (k < a.dk) {
          const float alpha = shared[at.alpha + k], key = shared[at.k + k];
          s[i].x = fmaf(key, v.x, alpha * s[i].x);
          s[i].y = fmaf(key, v.y, alpha * s[i].y);
          s[i].z = fmaf(key, v.z, alpha * s[i].z);
          s[i].w = fmaf(key, v.w, alpha * s[i].w);
          if (col + sub_col < a.dv) {
            __stcs(reinterpret_cast<float4*>(p + static_cast<int64_t>(i) * kRowsPerPass * a.dv),
                   s[i]);
          }
        }
      }
      for (int g = 0; g < groups; ++g) {
        if constexpr (!kSingle) o = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int i = 0; i < kPasses; ++i) {
          const int k = k0 + sub_row + i * kRowsPerPass;
          const float q = k < a.dk ? shared[at.q + g * a.dk + k] : 0.0f;
          o.x = fmaf(q, s[i].x, o.x);
          o.y = fmaf(q, s[i].y, o.y);
          o.z = fmaf(q, s[i].z, o.z);
          o.w = fmaf(q, s[i].w, o.w);
        }
        if constexpr (!kSingle) {
          SumColumns(o, red, shared + at.o + (g * local_tiles + local_tile) * kTile, k0 > 0);
        }
      }
    }
    if constexpr (kSingle) SumColumns(o, red, shared + at.o + local_tile * kTile, false);
  }

  // Per-head norm over all dv columns, which the team's blocks hold.
  const int owned = local_tile * kTile;
  team.WaitUntilStarted();
  for (int g = warp; g < groups; g += kWarps) {
    float sum = 0.0f;
    for (int i = lane; i < owned; i += 32) {
      const float o = shared[at.o + g * local_tiles * kTile + i];
      sum += o * o;  // columns past dv are zero
    }
    sum = WarpSum(sum);
    if (lane < cluster_size) *team.At(shared + at.squares + g * kMaxCluster + rank, lane) = sum;
  }
  team.Sync();
  for (int i = thread; i < groups * owned; i += kThreads) {
    const int g = i / owned, tile = rank + i % owned / kTile * cluster_size;
    const int col = tile * kTile + i % kTile;
    if (col >= a.dv) continue;
    float squares = 0.0f;
    for (int b = 0; b < cluster_size; ++b) squares += shared[at.squares + g * kMaxCluster + b];
    const int c = (head * groups + g) * a.dv + col;
    float y = shared[at.o + g * local_tiles * kTile + i % owned] * rsqrtf(squares / a.dv + a.eps);
    if (!one_column) {
      if (a.head_norm != nullptr) norm_weight = a.head_norm[col];
      if (a.output_gate) gate_in = __bfloat162float(in[a.g_offset + c]);
    }
    y *= norm_weight;
    if (a.output_gate) y *= Silu(gate_in);
    a.out[row * a.out_stride + c] = __float2bfloat16_rn(y);
  }
  if (a.taps > 1 && rank == 0) {
    // Every block of the team has read the tails.
    for (int i = thread; i < groups * a.dk; i += kThreads) {
      AdvanceTail(a, __bfloat162float(in[q_first + i]), layer + a.tail_q + q_first + i, q_dim);
    }
    for (int i = thread; i < a.dk; i += kThreads) {
      AdvanceTail(a, __bfloat162float(in[a.k_offset + k_first + i]), layer + a.tail_k + k_first + i,
                  k_dim);
    }
  }
}

template <int kPasses, int kBlocks, bool kSingle>
cudaError_t LaunchPasses(const MixerLaunch& args, int grid_rows, size_t shared_bytes,
                         cudaStream_t stream) {
  const int cluster = ClusterSize(args.dv);
  const auto kernel = GlaDecodeKernel<kPasses, kBlocks, kSingle>;
  if (shared_bytes > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  return Launch(kernel, grid_rows * args.kv_heads * cluster, kThreads, shared_bytes, stream,
                cluster, args, cluster);
}

}  // namespace

size_t GlaDecodeSharedBytes(const MixerLaunch& args) {
  return SharedLayout(args.heads / args.kv_heads, args.dk, args.dv, ClusterSize(args.dv)).total *
         sizeof(float);
}

cudaError_t LaunchGlaDecode(const MixerLaunch& args, int grid_rows, cudaStream_t stream) {
  const size_t bytes = GlaDecodeSharedBytes(args);
  if (args.heads != args.kv_heads) return LaunchPasses<8, 3, false>(args, grid_rows, bytes, stream);
  // A few blocks have more loads in flight each; many blocks hide each other's phases.
  constexpr int kManyBlocks = 1536;
  return grid_rows * args.kv_heads * ClusterSize(args.dv) < kManyBlocks
             ? LaunchPasses<8, 3, true>(args, grid_rows, bytes, stream)
             : LaunchPasses<4, 4, true>(args, grid_rows, bytes, stream);
}

}  // namespace sluice::cuda
