// Takes the state through the chunks of a span, one block a (span, head, 128 columns of v), a
// warpgroup 64 columns:
//   o_t = q~_t S + sum_{s <= t} scores[t, s] v_s
//   S  <- diag(decay) S + sum_s k~_s^T v_s
// The state lies transposed, (v, dk), in fp32 accumulators for the whole span: rounded to bf16
// pairs, they are the left operand of the first product as they lie, and the right place for the
// sums of the last. Chunks arrive in stages of shared memory by cp.async, in the swizzled tiles
// that the tensor cores read: two on Hopper, where there is room for 128 columns of v as well.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mixer.h"
#include "kernels/cuda/wgmma.cuh"

namespace sluice::cuda {
namespace {

constexpr int kGroupWarps = 4;  // of a warpgroup
constexpr int kMaxWarps = 2 * kGroupWarps;
__host__ __device__ constexpr int Stages(bool hopper) { return hopper ? 2 : 1; }
constexpr int kTileBytes = kChunk * 128;  // 64 rows of 64 columns
constexpr int kPassKeys = 256;            // of dk that one pass holds

struct Params {
  int first_chunk;  // the buffers' chunk 0, of the step
  int first_span;
  int first_key;  // of this pass
  bool first_pass, last_pass;
  int member;  // of the query heads that share a state, which take turns: the last replaces it
};

// The offset of 16-byte chunk `chunk` of a row: tiles of 64 columns lie one after another, swizzled
// as wgmma.cuh says.
__device__ __forceinline__ uint32_t At(int row, int chunk) {
  return chunk / 8 * kTileBytes + row * 128 + ((chunk ^ row) & 7) * 16;
}

template <int kKeys>
struct Stage {
  static constexpr int q = 0;
  static constexpr int k = q + kKeys / 64 * kTileBytes;
  static constexpr int scores = k + kKeys / 64 * kTileBytes;
  static constexpr int v = scores + kTileBytes;
  __host__ __device__ static int Decay(int warps) { return v + warps / kGroupWarps * kTileBytes; }
  __host__ __device__ static int Bytes(int warps) { return Decay(warps) + 1024; }
};

// kSums: only what the span adds to a state of zeros, into the span's carry.
template <int kKeys, bool kSums>
__global__ void __launch_bounds__(kMaxWarps * 32, 1)
    GlaChunkKernel(const __grid_constant__ MixerLaunch a, const __grid_constant__ ChunkBuffers b,
                   const __grid_constant__ Params p) {
  using S = Stage<kKeys>;
  constexpr int kTiles = kKeys / 8, kStages = Stages(SLUICE_HOPPER);
  extern __shared__ char unaligned[];
  char* shared = unaligned + (1024 - SharedAddress(unaligned) % 1024) % 1024;
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4,
            t = lane % 4;
  const int groups = kSums ? 1 : a.heads / a.kv_heads;
  const int kv_head = blockIdx.y, head = kv_head * groups + p.member;
  const int v_first = blockIdx.x * warps * 16;  // of the block
  const int v_lane = v_first + warp * 16 + g;   // of the lane: this one and + 8
  WaitForPredecessor();
  const SpanMeta span = MetaArray<SpanMeta>(a.meta, a.meta->spans)[p.first_span + blockIdx.z];
  const ChunkMeta* chunks = MetaArray<ChunkMeta>(a.meta, a.meta->chunks);
  const bf16* v_source = b.conv != nullptr ? b.conv : a.in;
  const int64_t v_stride = b.conv != nullptr ? b.conv_stride : a.in_stride;

  const auto fill = [&](int c) {
    if (c < span.chunks) {
      const uint32_t stage = SharedAddress(shared) + c % kStages * S::Bytes(warps);
      const ChunkMeta chunk = chunks[span.chunk + c];
      const int64_t local = span.chunk + c - p.first_chunk;
      const bf16* q = b.q + (local * a.heads + head) * kChunk * b.key_stride + p.first_key;
      const bf16* k = b.k + (local * a.kv_heads + kv_head) * kChunk * b.key_stride + p.first_key;
      constexpr int kRowChunks = kKeys / 8;
      for (int i = threadIdx.x; i < kChunk * kRowChunks; i += blockDim.x) {
        const int row = i / kRowChunks, at = i % kRowChunks;
        if constexpr (!kSums) {
          CopyAsync16(stage + S::q + At(row, at), q + row * b.key_stride + at * 8, true);
        }
        CopyAsync16(stage + S::k + At(row, at), k + row * b.key_stride + at * 8, true);
      }
      if constexpr (!kSums) {
        const bf16* scores = b.scores + (local * a.heads + head) * kChunk * kChunk;
        for (int i = threadIdx.x; i < kChunk * 8; i += blockDim.x) {
          CopyAsync16(stage + S::scores + At(i / 8, i % 8), scores + i * 8, true);
        }
      }
      const float* decay = b.decay + (local * a.kv_heads + kv_head) * b.key_stride + p.first_key;
      for (int i = threadIdx.x; i < kKeys / 4; i += blockDim.x) {
        CopyAsync16(stage + S::Decay(warps) + i * 16, decay + i * 4, true);
      }
      const int v_chunks = warps * 2;
      for (int i = threadIdx.x; i < kChunk * v_chunks; i += blockDim.x) {
        const int row = i / v_chunks, at = i % v_chunks, col = v_first + at * 8;
        const bool valid = row < chunk.tokens && col < a.dv;
        const bf16* from = v_source + (chunk.row + (valid ? row : 0)) * v_stride + a.v_offset +
                           kv_head * a.dv + (valid ? col : 0);
        CopyAsync16(stage + S::v + At(row, at), from, valid);
      }
    }
    CommitCopies();
  };
  fill(0);

  float* slot = a.states + span.slot * a.slot_stride + static_cast<int64_t>(kv_head) * a.dk * a.dv;
  float* carry = b.carry + (static_cast<int64_t>(span.carry) * a.kv_heads + kv_head) *
                               static_cast<int64_t>(a.dk) * a.dv;
  float state[kTiles * 4];
  {
    const float* from = span.carry >= 0 ? carry : slot;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = p.first_key + n * 8 + 2 * t + i % 2, col = v_lane + i / 2 * 8;
        const bool valid = !kSums && key < a.dk && col < a.dv;
        state[n * 4 + i] = valid ? from[static_cast<int64_t>(key) * a.dv + col] : 0.0f;
      }
    }
  }

  for (int c = 0; c < span.chunks; ++c) {
    if (kStages == 2) fill(c + 1);
    WaitCopies<kStages - 1>();
    FenceForWgmma();
    __syncthreads();
    const uint32_t stage = SharedAddress(shared) + c % kStages * S::Bytes(warps);
    const ChunkMeta chunk = chunks[span.chunk + c];
    const int m = lane / 8, r = lane % 8;  // matrix and row that the lane addresses in ldmatrix
    // v^T as left operand, 16 columns by 16 tokens at a time.
    uint32_t v[4][4];
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      LoadMatrix4Transposed(v[s], stage + S::v + At(s * 16 + m / 2 * 8 + r, warp * 2 + m % 2));
    }
    if constexpr (!kSums) {
      float o[32] = {};
      if (!p.first_pass) {
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int token = n * 8 + 2 * t + i % 2, col = v_lane + i / 2 * 8;
            if (token < chunk.tokens && col < a.dv) {
              o[n * 4 + i] = b.partial[(static_cast<int64_t>(chunk.row) + token) * a.heads * a.dv +
                                       head * a.dv + col];
            }
          }
        }
      }
      // Four steps of 16 keys at a time; the next four are rounded while these run.
      uint32_t left[2][4][4];
#pragma unroll
      for (int tile = 0; tile < kKeys / 64; ++tile) {
        if (tile >= 2) WgmmaWait<1>();
#pragma unroll
        for (int step = 0; step < 4; ++step) {
          const float* pairs = state + (tile * 4 + step) * 8;
#pragma unroll
          for (int i = 0; i < 4; ++i)
            left[tile % 2][step][i] = PackBf16(pairs[2 * i], pairs[2 * i + 1]);
        }
        const uint64_t q = SwizzledTile(stage + S::q + tile * kTileBytes);
        WgmmaFence();
#pragma unroll
        for (int step = 0; step < 4; ++step)
          WgmmaRegisters<64, false>::Run(o, left[tile % 2][step], q + step * 2);
        WgmmaCommit();
      }
      if (p.first_pass) {
        // Scores above the diagonal are zeros.
        const uint64_t scores = SwizzledTile(stage + S::scores);
        WgmmaFence();
#pragma unroll
        for (int s = 0; s < 4; ++s) WgmmaRegisters<64, false>::Run(o, v[s], scores + s * 2);
        WgmmaCommit();
      }
      WgmmaWait<0>();
      if (p.last_pass) {
        // Through shared memory, so that a token's 16 columns leave as two 16-byte stores.
        char* rows = shared + kStages * S::Bytes(warps) + warp * kChunk * 32;
        const uint32_t rows_at = SharedAddress(rows);
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
          const uint32_t r0 = PackBf16(o[n * 4], o[n * 4 + 1]),
                         r1 = PackBf16(o[n * 4 + 2], o[n * 4 + 3]);
          const uint32_t r2 = PackBf16(o[n * 4 + 4], o[n * 4 + 5]),
                         r3 = PackBf16(o[n * 4 + 6], o[n * 4 + 7]);
          const int token = (n + m / 2) * 8 + r;
          const uint32_t address = rows_at + token * 32 + ((m % 2) ^ (token / 4 % 2)) * 16;
          StoreMatrix4Transposed(address, r0, r1, r2, r3);
        }
        __syncwarp();
#pragma unroll
        for (int i = lane; i < kChunk * 2; i += 32) {
          const int token = i / 2, half = i % 2, col = v_first + warp * 16 + half * 8;
          if (token < chunk.tokens && col < a.dv) {
            const uint4 value =
                *reinterpret_cast<const uint4*>(rows + token * 32 + (half ^ (token / 4 % 2)) * 16);
            *reinterpret_cast<uint4*>(a.out + (chunk.row + token) * a.out_stride + head * a.dv +
                                      col) = value;
          }
        }
        __syncwarp();
      } else {
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int token = n * 8 + 2 * t + i % 2, col = v_lane + i / 2 * 8;
            if (token < chunk.tokens && col < a.dv) {
              b.partial[(static_cast<int64_t>(chunk.row) + token) * a.heads * a.dv + head * a.dv +
                        col] = o[n * 4 + i];
            }
          }
        }
      }
    }
    const float* decay =
        reinterpret_cast<const float*>(shared + c % kStages * S::Bytes(warps) + S::Decay(warps));
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const float2 d = *reinterpret_cast<const float2*>(decay + n * 8 + 2 * t);
      state[n * 4] *= d.x;
      state[n * 4 + 1] *= d.y;
      state[n * 4 + 2] *= d.x;
      state[n * 4 + 3] *= d.y;
    }
    const uint64_t k = SwizzledTile(stage + S::k, kTileBytes);
    WgmmaFence();
#pragma unroll
    for (int s = 0; s < 4; ++s)
      WgmmaRegisters<kKeys, true>::Run(state, v[s], k + s * (16 * 128 >> 4));
    WgmmaCommit();

    WgmmaWait<0>();
    __syncthreads();
    if (kStages == 1) fill(c + 1);
  }

  if (kSums && blockIdx.x == 0) {
    // The whole span's decay, for the scan.
    for (int i = threadIdx.x; i < kKeys; i += blockDim.x) {
      float product = 1.0f;
      for (int c = 0; c < span.chunks; ++c) {
        const int64_t local = span.chunk + c - p.first_chunk;
        product *= b.decay[(local * a.kv_heads + kv_head) * b.key_stride + p.first_key + i];
      }
      b.span_decay[(static_cast<int64_t>(span.carry) * a.kv_heads + kv_head) * b.key_stride +
                   p.first_key + i] = product;
    }
  }
  // A whole span's state comes from the scan, so that it is the same however the prompt was cut.
  if (kSums || (span.carry < 0 && p.member == groups - 1)) {
    float* to = kSums ? carry : slot;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = p.first_key + n * 8 + 2 * t + i % 2, col = v_lane + i / 2 * 8;
        if (key < a.dk && col < a.dv) to[static_cast<int64_t>(key) * a.dv + col] = state[n * 4 + i];
      }
    }
  }
}

template <int kKeys, bool kSums>
cudaError_t LaunchPass(const MixerLaunch& a, const ChunkBuffers& b, const Params& p, int spans,
                       cudaStream_t stream) {
  const bool hopper = HasHopperCode();
  const int all = (a.dv + 63) / 64 * kGroupWarps, most = hopper ? kMaxWarps : kGroupWarps;
  const int warps = all < most ? all : most;
  const int bytes = 1024 + Stages(hopper) * Stage<kKeys>::Bytes(warps) + warps * kChunk * 32;
  const cudaError_t prepared = cudaFuncSetAttribute(
      GlaChunkKernel<kKeys, kSums>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (prepared != cudaSuccess) return prepared;
  const dim3 grid((all + warps - 1) / warps, a.kv_heads, spans);
  return Launch(GlaChunkKernel<kKeys, kSums>, grid, warps * 32, bytes, stream, 1, a, b, p);
}

template <bool kSums>
cudaError_t LaunchPasses(const MixerLaunch& a, const ChunkBuffers& b, const ChunkRange& range,
                         int first_span, int spans, int member, cudaStream_t stream) {
  if (spans == 0) return cudaSuccess;
  for (int key = 0; key < b.key_stride; key += kPassKeys) {
    const Params p = {
        range.first_chunk, first_span, key, key == 0, key + kPassKeys >= b.key_stride, member};
    const int keys = b.key_stride - key < kPassKeys ? b.key_stride - key : kPassKeys;
    const cudaError_t error = keys <= 64    ? LaunchPass<64, kSums>(a, b, p, spans, stream)
                              : keys <= 128 ? LaunchPass<128, kSums>(a, b, p, spans, stream)
                              : keys <= 192 ? LaunchPass<192, kSums>(a, b, p, spans, stream)
                                            : LaunchPass<256, kSums>(a, b, p, spans, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t LaunchGlaSpanSums(const MixerLaunch& args, const ChunkBuffers& buffers,
                              const ChunkRange& range, cudaStream_t stream) {
  return LaunchPasses<true>(args, buffers, range, range.first_span, range.whole_spans, 0, stream);
}

cudaError_t LaunchGlaChunks(const MixerLaunch& args, const ChunkBuffers& buffers,
                            const ChunkRange& range, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  for (int member = 0; member < args.heads / args.kv_heads && error == cudaSuccess; ++member)
    error =
        LaunchPasses<false>(args, buffers, range, range.first_span, range.spans, member, stream);
  return error;
}

}  // namespace sluice::cuda
