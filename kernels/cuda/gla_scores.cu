// The part of the chunkwise form that does not need the state (arXiv 2312.06635, section 4.3), for
// one chunk of 64 tokens and one head: q and k times their decays within the chunk, and the causal
// scores between its tokens. With G_t the sum of log2 decays through token t:
//   q~_t = q_t 2^(G_t)      k~_s = k_s 2^(G_end - G_s)      scores[t, s] = sum_c q_t k_s 2^(G_t -
//   G_s),  s <= t
//
// A warp owns a sub-chunk of 16 tokens. Its own cumulative sums give q' = q 2^(G_t - G_begin) and
// k' = k 2^(G_end - G_s), exponents <= 0; everything between sub-chunks is a product of whole
// sub-chunks' decays, each in [0, 1], so nothing overflows and underflow is the right limit. The
// block on the diagonal is a product around the sub-chunk's middle, whose exponents reach +-60 at
// most; past that it is evaluated by differences.
//
// Channels of a block of 32 are dealt to lanes so that lane t of a quad holds channels 8 t .. 8 t +
// 7: global accesses are 16 bytes a lane, and an accumulator's registers are the operands of the
// next product as they lie.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gate.cuh"
#include "kernels/cuda/mixer.h"

namespace sluice::cuda {
namespace {

constexpr int kWarps = kChunk / 16;
constexpr int kBlock = 32;              // channels at a time
constexpr int kPairs = kBlock / 4 / 2;  // of channels, that a lane holds
constexpr float kMaxExponent = 60.0f;

struct Shared {
  float mid[kWarps][kBlock];       // log2 of the decay of a sub-chunk's first 8 tokens
  float total[kWarps][kBlock];     // of all 16
  float decay[2][kWarps][kBlock];  // 2^total
  float from_mid[kWarps][kBlock];  // 2^-mid
  float to_mid[kWarps][kBlock];    // 2^(mid - total)
  uint4 keys[2][kWarps][2][32];    // k' as fragments, by half of the sub-chunk
};

// A lane's channels of one token; zero where not `valid`.
__device__ __forceinline__ uint4 LoadChannels(const bf16* p, bool valid) {
  return valid ? *reinterpret_cast<const uint4*>(p) : make_uint4(0, 0, 0, 0);
}
__device__ __forceinline__ uint32_t Pair(const uint4& v, int n) {
  return n == 0 ? v.x : n == 1 ? v.y : n == 2 ? v.z : v.w;
}

// A pair of floats as two pairs of bf16 that sum to them, to 16 bits. Where decay is fast, a
// token's own score and its neighbours' are all of its output, and the norm that follows magnifies
// their error when they cancel.
struct Split {
  uint32_t high, low;
};
__device__ __forceinline__ Split SplitBf16(float x, float y) {
  const uint32_t high = PackBf16(x, y);
  return {high, PackBf16(x - LowBf16(high), y - HighBf16(high))};
}

// The diagonal block by differences, for decays too strong to be split.
__device__ __noinline__ void DiagonalByDifferences(FeatureMap map, float scale, const bf16* q0,
                                                   const bf16* q1, const bf16* k_first,
                                                   int64_t k_stride, int tokens, bool valid,
                                                   const float (&g0)[kPairs][2],
                                                   const float (&g1)[kPairs][2],
                                                   float (&acc)[2][4]) {
  const int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll 1
    for (int s = 0; s < 8; ++s) {
      float p0 = 0.0f, p1 = 0.0f;
      const bool key = half * 8 + s < tokens;
#pragma unroll
      for (int n = 0; n < kPairs; ++n) {
#pragma unroll
        for (int b = 0; b < 2; ++b) {
          const float gs = __shfl_sync(0xffffffffu, half == 0 ? g0[n][b] : g1[n][b], s * 4 + t);
          const int c = 2 * n + b;
          if (key && valid) {
            const float k =
                MapFeature(map, __bfloat162float(k_first[(half * 8 + s) * k_stride + c]));
            if (q0 != nullptr) {
              p0 += scale * MapFeature(map, __bfloat162float(q0[c])) * k *
                    Exp2(fminf(g0[n][b] - gs, 0.0f));
            }
            if (q1 != nullptr) {
              p1 += scale * MapFeature(map, __bfloat162float(q1[c])) * k *
                    Exp2(fminf(g1[n][b] - gs, 0.0f));
            }
          }
        }
      }
      p0 += __shfl_xor_sync(0xffffffffu, p0, 1);
      p1 += __shfl_xor_sync(0xffffffffu, p1, 1);
      p0 += __shfl_xor_sync(0xffffffffu, p0, 2);
      p1 += __shfl_xor_sync(0xffffffffu, p1, 2);
      if (t == s / 2) {
        acc[half][0] += s % 2 == 0 ? p0 : 0.0f;
        acc[half][1] += s % 2 == 1 ? p0 : 0.0f;
        acc[half][2] += s % 2 == 0 ? p1 : 0.0f;
        acc[half][3] += s % 2 == 1 ? p1 : 0.0f;
      }
    }
  }
}

// A lane's log decays of its two tokens, laid out as the gate's product.
__device__ __forceinline__ void LoadDecays(const MixerLaunch& a, int64_t row0, int64_t row1,
                                           int kv_head, int first, bool valid,
                                           float (&z)[kPairs][4]) {
  if (!valid) return;
  const int64_t at = static_cast<int64_t>(kv_head) * a.dk + first;
  const int64_t stride = static_cast<int64_t>(a.kv_heads) * a.dk;
#pragma unroll
  for (int n = 0; n < kPairs; ++n) {
    const float2 low = *reinterpret_cast<const float2*>(a.log_decay + row0 * stride + at + 2 * n);
    const float2 high = *reinterpret_cast<const float2*>(a.log_decay + row1 * stride + at + 2 * n);
    z[n][0] = low.x;
    z[n][1] = low.y;
    z[n][2] = high.x;
    z[n][3] = high.y;
  }
}

// kGiven: the log decays are a.log_decay; else they come from the low-rank gate.
template <bool kGiven>
__global__ void __launch_bounds__(128, 4)
    GlaScoresKernel(const __grid_constant__ MixerLaunch a, const __grid_constant__ ChunkBuffers b,
                    int first_chunk) {
  __shared__ Shared shared;
  WaitForPredecessor();
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[first_chunk + blockIdx.x];
  const int head = blockIdx.y, groups = a.heads / a.kv_heads, kv_head = head / groups;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int token0 = warp * 16 + g;
  const bool valid0 = token0 < chunk.tokens, valid1 = token0 + 8 < chunk.tokens;
  const int64_t row0 = chunk.row + min(token0, chunk.tokens - 1),
                row1 = chunk.row + min(token0 + 8, chunk.tokens - 1);
  const bf16* source = b.conv != nullptr ? b.conv : a.in;
  const int64_t stride = b.conv != nullptr ? b.conv_stride : a.in_stride;
  const bf16* q0 = source + row0 * stride + head * a.dk;
  const bf16* q1 = source + row1 * stride + head * a.dk;
  const bf16* k0 = source + row0 * stride + a.k_offset + kv_head * a.dk;
  const bf16* k1 = source + row1 * stride + a.k_offset + kv_head * a.dk;
  const bf16* low0 = a.in + row0 * a.in_stride + a.gate_offset;
  const bf16* low1 = a.in + row1 * a.in_stride + a.gate_offset;

  float scores[kWarps][2][4] =
      {};  // [earlier sub-chunk][8 of its tokens]; [0] of the diagonal comes last
  float diagonal[2][4] = {};
  int parity = 0;
  for (int c0 = 0; c0 < b.key_stride; c0 += kBlock, parity ^= 1) {
    const int first = c0 + 2 * kPairs * t;  // this lane's first channel
    const bool valid = first < a.dk;        // dk is a multiple of 8: all of them or none
    // Gate: a product of rank `rank`, accumulators in the layout described above.
    float z[kPairs][4] = {};
    if constexpr (kGiven) {
      LoadDecays(a, row0, row1, kv_head, first, valid, z);
    }
    for (int r = 0; !kGiven && r < a.rank; r += 16) {
      const uint32_t a0 = *reinterpret_cast<const uint32_t*>(low0 + r + 2 * t);
      const uint32_t a1 = *reinterpret_cast<const uint32_t*>(low1 + r + 2 * t);
      const uint32_t a2 = *reinterpret_cast<const uint32_t*>(low0 + r + 8 + 2 * t);
      const uint32_t a3 = *reinterpret_cast<const uint32_t*>(low1 + r + 8 + 2 * t);
#pragma unroll
      for (int n = 0; n < kPairs; ++n) {
        const int c = c0 + 2 * kPairs * (g / 2) + 2 * n + g % 2;
        const bf16* w = a.gate + (kv_head * a.dk + min(c, a.dk - 1)) * a.gate_stride + r + 2 * t;
        Mma(z[n], a0, a1, a2, a3, *reinterpret_cast<const uint32_t*>(w),
            *reinterpret_cast<const uint32_t*>(w + 8));
      }
    }
    // Cumulative log2 decays of the sub-chunk's tokens: g0 of rows 0-7, g1 of rows 8-15.
    float g0[kPairs][2], g1[kPairs][2];
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      float2 bias = make_float2(0, 0);
      if (!kGiven && valid)
        bias = *reinterpret_cast<const float2*>(a.gate_bias + kv_head * a.dk + first + 2 * n);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float bias_i = i == 0 ? bias.x : bias.y;
        const auto log_decay2 = [&](float raw) {
          return kGiven ? fmaxf(raw * kLog2E, a.min_log_decay2)
                        : LogDecay2(raw + bias_i, a.min_log_decay2);
        };
        float x = valid0 && valid ? log_decay2(z[n][i]) : 0.0f;
        float y = valid1 && valid ? log_decay2(z[n][2 + i]) : 0.0f;
#pragma unroll
        for (int d = 1; d < 8; d *= 2) {
          const float from_x = __shfl_up_sync(0xffffffffu, x, 4 * d),
                      from_y = __shfl_up_sync(0xffffffffu, y, 4 * d);
          if (g >= d) {
            x += from_x;
            y += from_y;
          }
        }
        const float mid = __shfl_sync(0xffffffffu, x, 28 + t);
        y += mid;
        g0[n][i] = x;
        g1[n][i] = y;
        if (g == 7) {
          shared.mid[warp][2 * kPairs * t + 2 * n + i] = mid;
          shared.total[warp][2 * kPairs * t + 2 * n + i] = y;
        }
      }
    }
    __syncwarp();
    const float mid_of_lane = shared.mid[warp][lane], total_of_lane = shared.total[warp][lane];
    shared.decay[parity][warp][lane] = Exp2(total_of_lane);
    shared.from_mid[warp][lane] = Exp2(-mid_of_lane);
    shared.to_mid[warp][lane] = Exp2(mid_of_lane - total_of_lane);
    const bool moderate = __all_sync(
        0xffffffffu, -mid_of_lane <= kMaxExponent && mid_of_lane - total_of_lane <= kMaxExponent);
    __syncwarp();

    float q[kPairs][4], k[kPairs][4];
    {
      const uint4 rq0 = LoadChannels(q0 + first, valid0 && valid);
      const uint4 rq1 = LoadChannels(q1 + first, valid1 && valid);
      const uint4 rk0 = LoadChannels(k0 + first, valid0 && valid);
      const uint4 rk1 = LoadChannels(k1 + first, valid1 && valid);
#pragma unroll
      for (int n = 0; n < kPairs; ++n) {
        const float2 total =
            *reinterpret_cast<const float2*>(&shared.total[warp][2 * kPairs * t + 2 * n]);
        q[n][0] = LowBf16(Pair(rq0, n));
        q[n][1] = HighBf16(Pair(rq0, n));
        q[n][2] = LowBf16(Pair(rq1, n));
        q[n][3] = HighBf16(Pair(rq1, n));
        k[n][0] = LowBf16(Pair(rk0, n));
        k[n][1] = HighBf16(Pair(rk0, n));
        k[n][2] = LowBf16(Pair(rk1, n));
        k[n][3] = HighBf16(Pair(rk1, n));
        if (a.feature_map != FeatureMap::kIdentity) {
          // A padding token or channel must stay zero whatever the map does to zero.
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const bool use = valid && (i < 2 ? valid0 : valid1);
            q[n][i] = use ? MapFeature(a.feature_map, q[n][i]) : 0.0f;
            k[n][i] = use ? MapFeature(a.feature_map, k[n][i]) : 0.0f;
          }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float end = i == 0 ? total.x : total.y;
          q[n][i] *= a.scale * Exp2(g0[n][i]);
          q[n][2 + i] *= a.scale * Exp2(g1[n][i]);
          k[n][i] *= Exp2(end - g0[n][i]);
          k[n][2 + i] *= Exp2(end - g1[n][i]);
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      shared.keys[parity][warp][half][lane] =
          make_uint4(PackBf16(k[0][2 * half], k[0][2 * half + 1]),
                     PackBf16(k[1][2 * half], k[1][2 * half + 1]),
                     PackBf16(k[2][2 * half], k[2][2 * half + 1]),
                     PackBf16(k[3][2 * half], k[3][2 * half + 1]));
    }
    // The diagonal block needs this warp alone.
    if (moderate) {
#pragma unroll
      for (int n = 0; n < kPairs; n += 2) {
        float f[4], h[4];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float2 from = *reinterpret_cast<const float2*>(
              &shared.from_mid[warp][2 * kPairs * t + 2 * (n + i)]);
          const float2 to =
              *reinterpret_cast<const float2*>(&shared.to_mid[warp][2 * kPairs * t + 2 * (n + i)]);
          f[2 * i] = from.x;
          f[2 * i + 1] = from.y;
          h[2 * i] = to.x;
          h[2 * i + 1] = to.y;
        }
        const Split a0 = SplitBf16(q[n][0] * f[0], q[n][1] * f[1]),
                    a1 = SplitBf16(q[n][2] * f[0], q[n][3] * f[1]);
        const Split a2 = SplitBf16(q[n + 1][0] * f[2], q[n + 1][1] * f[3]);
        const Split a3 = SplitBf16(q[n + 1][2] * f[2], q[n + 1][3] * f[3]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Split b0 = SplitBf16(k[n][2 * half] * h[0], k[n][2 * half + 1] * h[1]);
          const Split b1 = SplitBf16(k[n + 1][2 * half] * h[2], k[n + 1][2 * half + 1] * h[3]);
          Mma(diagonal[half], a0.high, a1.high, a2.high, a3.high, b0.high, b1.high);
          Mma(diagonal[half], a0.high, a1.high, a2.high, a3.high, b0.low, b1.low);
          Mma(diagonal[half], a0.low, a1.low, a2.low, a3.low, b0.high, b1.high);
        }
      }
    } else {
      const int64_t first_row = chunk.row + min(warp * 16, chunk.tokens - 1);
      DiagonalByDifferences(a.feature_map, a.scale, valid0 ? q0 + first : nullptr,
                            valid1 ? q1 + first : nullptr,
                            source + first_row * stride + a.k_offset + kv_head * a.dk + first,
                            stride, chunk.tokens - warp * 16, valid, g0, g1, diagonal);
    }
    __syncthreads();

    // Blocks below the diagonal; `between` is the decay of the sub-chunks between the two.
    float before[kPairs][2], after[kPairs][2];
#pragma unroll
    for (int n = 0; n < kPairs; ++n) before[n][0] = before[n][1] = after[n][0] = after[n][1] = 1.0f;
#pragma unroll
    for (int j = kWarps - 2; j >= 0; --j) {
      if (j >= warp) continue;
#pragma unroll
      for (int n = 0; n < kPairs; n += 2) {
        const uint32_t a0 = PackBf16(q[n][0] * before[n][0], q[n][1] * before[n][1]);
        const uint32_t a1 = PackBf16(q[n][2] * before[n][0], q[n][3] * before[n][1]);
        const uint32_t a2 =
            PackBf16(q[n + 1][0] * before[n + 1][0], q[n + 1][1] * before[n + 1][1]);
        const uint32_t a3 =
            PackBf16(q[n + 1][2] * before[n + 1][0], q[n + 1][3] * before[n + 1][1]);
        const uint4 low = shared.keys[parity][j][0][lane], high = shared.keys[parity][j][1][lane];
        Mma(scores[j][0], a0, a1, a2, a3, Pair(low, n), Pair(low, n + 1));
        Mma(scores[j][1], a0, a1, a2, a3, Pair(high, n), Pair(high, n + 1));
      }
#pragma unroll
      for (int n = 0; n < kPairs; ++n) {
        const float2 d =
            *reinterpret_cast<const float2*>(&shared.decay[parity][j][2 * kPairs * t + 2 * n]);
        before[n][0] *= d.x;
        before[n][1] *= d.y;
      }
    }
#pragma unroll
    for (int j = 1; j < kWarps; ++j) {
      if (j <= warp) continue;
#pragma unroll
      for (int n = 0; n < kPairs; ++n) {
        const float2 d =
            *reinterpret_cast<const float2*>(&shared.decay[parity][j][2 * kPairs * t + 2 * n]);
        after[n][0] *= d.x;
        after[n][1] *= d.y;
      }
    }
    uint32_t out[2][kPairs];
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      out[0][n] = PackBf16(q[n][0] * before[n][0], q[n][1] * before[n][1]);
      out[1][n] = PackBf16(q[n][2] * before[n][0], q[n][3] * before[n][1]);
    }
    bf16* to_q =
        b.q +
        ((static_cast<int64_t>(blockIdx.x) * a.heads + head) * kChunk + token0) * b.key_stride +
        first;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      *reinterpret_cast<uint4*>(to_q + i * 8 * b.key_stride) =
          make_uint4(out[i][0], out[i][1], out[i][2], out[i][3]);
    }
    if (head % groups == 0) {
#pragma unroll
      for (int n = 0; n < kPairs; ++n) {
        out[0][n] = PackBf16(k[n][0] * after[n][0], k[n][1] * after[n][1]);
        out[1][n] = PackBf16(k[n][2] * after[n][0], k[n][3] * after[n][1]);
      }
      const int64_t at = static_cast<int64_t>(blockIdx.x) * a.kv_heads + kv_head;
      bf16* to_k = b.k + (at * kChunk + token0) * b.key_stride + first;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        *reinterpret_cast<uint4*>(to_k + i * 8 * b.key_stride) =
            make_uint4(out[i][0], out[i][1], out[i][2], out[i][3]);
      }
      if (threadIdx.x < kBlock) {
        float d = 1.0f;
#pragma unroll
        for (int j = 0; j < kWarps; ++j) d *= shared.decay[parity][j][threadIdx.x];
        b.decay[at * b.key_stride + c0 + threadIdx.x] = d;
      }
    }
  }

  bf16* to = b.scores +
             ((static_cast<int64_t>(blockIdx.x) * a.heads + head) * kChunk + token0) * kChunk +
             2 * t;
#pragma unroll
  for (int j = 0; j < kWarps; ++j) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int s = half * 8 + 2 * t;  // within the sub-chunk
      float v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool causal = s + i % 2 <= g + i / 2 * 8;
        v[i] = j < warp ? scores[j][half][i] : j == warp && causal ? diagonal[half][i] : 0.0f;
      }
      *reinterpret_cast<uint32_t*>(to + j * 16 + half * 8) = PackBf16(v[0], v[1]);
      *reinterpret_cast<uint32_t*>(to + 8 * kChunk + j * 16 + half * 8) = PackBf16(v[2], v[3]);
    }
  }
}

}  // namespace

cudaError_t LaunchGlaScores(const MixerLaunch& args, const ChunkBuffers& buffers,
                            const ChunkRange& range, cudaStream_t stream) {
  const auto kernel = args.log_decay == nullptr ? GlaScoresKernel<false> : GlaScoresKernel<true>;
  return Launch(kernel, dim3(range.chunks, args.heads), 128, 0, stream, 1, args, buffers,
                range.first_chunk);
}

}  // namespace sluice::cuda
