// The part of the chunkwise form that does not need the state, for decays that a state's key
// channels share (arXiv 2312.06635, section 2; arXiv 2307.08621, equation 7; arXiv 2405.21060,
// section 6): with G_t the sum of log2 decays of a chunk's tokens through t,
//   scores[t, s] = (q_t k_s) 2^(G_t - G_s) scale_s,  s <= t
// One product for all output heads that share a query and a key; a head's decays are applied to its
// accumulators. Differences are formed before the exponential and never exceed 0.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/tile_product.cuh"

namespace sluice::cuda {
namespace {

constexpr int kWarps = kChunk / 16;  // a warp takes 16 tokens
constexpr int kThreads = kWarps * 32;
constexpr int kMembers = 8;          // output heads that one block makes scores for
constexpr int kRowBytes = 128 + 16;  // of scores on their way out, padded against conflicts
// log2 of what is zero in fp32: below it decays do not differ, and sums of 64 of it keep three
// digits behind the point.
constexpr float kLeastDecay2 = -160.0f;

struct Shared {
  union {
    TileStages stages;
    char rows[kWarps][16 * kRowBytes];  // after the product
  };
  float sum[kMembers][kChunk];  // G
  float scale[kMembers][kChunk];
};

// The number of output heads that share a query and a key.
__host__ __device__ inline int Sharers(const LinearArgs& a) {
  return a.out_heads / (a.q_heads > a.k_heads ? a.q_heads : a.k_heads);
}

__global__ void __launch_bounds__(kThreads)
    LinearScoresKernel(const __grid_constant__ LinearArgs a,
                       const __grid_constant__ LinearBuffers b, int first_chunk) {
  __shared__ __align__(1024) Shared shared;
  WaitForPredecessor();
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[first_chunk + blockIdx.x];
  const int sharers = Sharers(a), groups = a.out_heads / a.state_heads;
  const int first_out = blockIdx.y * sharers + blockIdx.z * kMembers;
  const int members = min(kMembers, sharers - static_cast<int>(blockIdx.z) * kMembers);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const bf16* q =
      a.prompt_front + chunk.row * a.front_stride + first_out / (a.out_heads / a.q_heads) * a.dk;
  const bf16* k = a.prompt_front + chunk.row * a.front_stride + a.k_offset +
                  first_out / groups / (a.state_heads / a.k_heads) * a.dk;

  // Decays and scales of the members; padding tokens do not decay.
  for (int i = threadIdx.x; i < members * kChunk; i += kThreads) {
    const int member = i % members, token = i / members, state = (first_out + member) / groups;
    const int64_t at = (static_cast<int64_t>(chunk.row) + token) * a.state_heads + state;
    const bool valid = token < chunk.tokens;
    float decay = 0.0f;
    if (valid && a.decay == LinearDecay::kConst) decay = a.log_decay[state];
    if (valid && a.decay == LinearDecay::kHead) decay = a.log_decay[at];
    shared.sum[member][token] = fmaxf(decay * kLog2E, kLeastDecay2);
    shared.scale[member][token] = a.key_scale == nullptr ? 1.0f : valid ? a.key_scale[at] : 0.0f;
  }
  __syncthreads();
  for (int member = warp; member < members; member += kWarps) {
    float low = shared.sum[member][lane], high = shared.sum[member][lane + 32];
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const float from_low = __shfl_up_sync(0xffffffffu, low, d),
                  from_high = __shfl_up_sync(0xffffffffu, high, d);
      if (lane >= d) {
        low += from_low;
        high += from_high;
      }
    }
    high += __shfl_sync(0xffffffffu, low, 31);
    shared.sum[member][lane] = low;
    shared.sum[member][lane + 32] = high;
    const int out = first_out + member;
    if (out % groups == 0) {
      const float end = __shfl_sync(0xffffffffu, high, 31);
      float* to = b.decays +
                  (static_cast<int64_t>(blockIdx.x) * a.state_heads + out / groups) * 2 * kChunk +
                  lane;
      to[0] = Exp2(low);
      to[32] = Exp2(high);
      to[kChunk] = Exp2(end - low) * shared.scale[member][lane];
      to[kChunk + 32] = Exp2(end - high) * shared.scale[member][lane + 32];
    }
  }

  float acc[8][4] = {};
  MultiplyTiles<true>({q, a.front_stride, chunk.tokens}, {k, a.front_stride, chunk.tokens}, a.dk,
                      &shared.stages, acc);

  char* rows = shared.rows[warp];
  const int token0 = warp * 16 + g;
  for (int member = 0; member < members; ++member) {
    const float* sum = shared.sum[member];
    const float sum0 = sum[token0], sum1 = sum[token0 + 8];
    float total0 = 0.0f, total1 = 0.0f;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int s = j * 8 + 2 * t + i % 2;
        const bool causal = s <= token0 + i / 2 * 8;
        const float decay = Exp2(fminf((i < 2 ? sum0 : sum1) - sum[s], 0.0f));
        v[i] = causal ? acc[j][i] * decay * shared.scale[member][s] : 0.0f;
      }
      const uint32_t pair0 = PackBf16(v[0], v[1]), pair1 = PackBf16(v[2], v[3]);
      total0 += LowBf16(pair0) + HighBf16(pair0);
      total1 += LowBf16(pair1) + HighBf16(pair1);
      *reinterpret_cast<uint32_t*>(rows + g * kRowBytes + j * 16 + t * 4) = pair0;
      *reinterpret_cast<uint32_t*>(rows + (g + 8) * kRowBytes + j * 16 + t * 4) = pair1;
    }
    __syncwarp();
    const int out = first_out + member;
    bf16* to =
        b.chunk.scores +
        ((static_cast<int64_t>(blockIdx.x) * a.out_heads + out) * kChunk + warp * 16) * kChunk;
#pragma unroll
    for (int i = lane; i < 16 * 8; i += 32) {
      *reinterpret_cast<uint4*>(to + i * 8) =
          *reinterpret_cast<const uint4*>(rows + i / 8 * kRowBytes + i % 8 * 16);
    }
    __syncwarp();
    if (a.normalisers != nullptr) {
#pragma unroll
      for (int d = 1; d < 4; d *= 2) {
        total0 += __shfl_xor_sync(0xffffffffu, total0, d);
        total1 += __shfl_xor_sync(0xffffffffu, total1, d);
      }
      if (t == 0) {
        float* denominators = b.denominators + static_cast<int64_t>(chunk.row) * a.out_heads + out;
        if (token0 < chunk.tokens) denominators[token0 * a.out_heads] = total0;
        if (token0 + 8 < chunk.tokens) denominators[(token0 + 8) * a.out_heads] = total1;
      }
    }
  }
}

}  // namespace

cudaError_t LaunchLinearScores(const LinearArgs& args, const LinearBuffers& buffers,
                               const ChunkRange& range, cudaStream_t stream) {
  const int sharers = Sharers(args);
  const dim3 grid(range.chunks, args.out_heads / sharers, (sharers + kMembers - 1) / kMembers);
  return Launch(LinearScoresKernel, grid, kThreads, 0, stream, 1, args, buffers, range.first_chunk);
}

}  // namespace sluice::cuda
