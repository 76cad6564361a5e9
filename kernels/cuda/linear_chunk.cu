// Takes the state through the chunks of a span where a state's key channels share their decay:
//   o_t = 2^(G_t) S^T q_t + sum_{s <= t} scores[t, s] v_s
//   S  <- 2^(G_end) S + sum_s k_s (2^(G_end - G_s) scale_s v_s)^T
// Keys and queries come as front left them: decays scale sums in registers and values on their way
// to the last product, so that heads which share queries and keys share their tiles too.
//
// A warpgroup holds 64 columns of v; a block is several of one state, or of several states with
// the same query and key, one each. The state lies transposed, (v, dk), in fp32 accumulators, as in
// gla_chunk.cu, whose swizzled tiles and stages these are.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/wgmma.cuh"

namespace sluice::cuda {
namespace {

constexpr int kGroupThreads = 128;           // of a warpgroup
constexpr int kTileBytes = kChunk * 128;     // 64 rows of 64 columns
constexpr int kDecayBytes = 2 * kChunk * 4;  // of a chunk and state
constexpr int kPassKeys = 256;               // of dk that one pass holds

struct Params {
  int first_chunk;  // the buffers' chunk 0, of the step
  int first_span;
  int first_key;  // of this pass
  bool first_pass, last_pass;
  int member;  // of the output heads that share a state, which take turns: the last replaces it
  int states;  // of a block: 1, or one a warpgroup
  bf16* out;
  int64_t out_stride;
};

// The offset of 16-byte chunk `chunk` of a row: tiles of 64 columns lie one after another, swizzled
// as wgmma.cuh says.
__device__ __forceinline__ uint32_t At(int row, int chunk) {
  return chunk / 8 * kTileBytes + row * 128 + ((chunk ^ row) & 7) * 16;
}

struct Stage {  // offsets in bytes; a tile of v a warpgroup, scores and decays a state
  int k, scores, v, decays, bytes;
};
template <int kKeys>
__host__ __device__ __forceinline__ Stage StageLayout(int groups, int states) {
  Stage s;
  s.k = kKeys / 64 * kTileBytes;
  s.scores = 2 * s.k;
  s.v = s.scores + states * kTileBytes;
  s.decays = s.v + groups * kTileBytes;
  s.bytes = s.decays + (states * kDecayBytes + 1023) / 1024 * 1024;
  return s;
}

// Starts copies of a chunk into a stage, by all threads of the block.
template <int kKeys, bool kSums>
__device__ __forceinline__ void FillStage(const LinearArgs& a, const LinearBuffers& b,
                                          const Params& p, const ChunkMeta& chunk, int64_t local,
                                          int first_state, int first_column, uint32_t stage,
                                          const Stage& at) {
  const int groups = blockDim.x / kGroupThreads, outs = a.out_heads / a.state_heads;
  const bf16* rows = a.prompt_front + chunk.row * a.front_stride;
  const int first_out = first_state * outs + p.member;
  const bf16* q = rows + first_out / (a.out_heads / a.q_heads) * a.dk;
  const bf16* k = rows + a.k_offset + first_state / (a.state_heads / a.k_heads) * a.dk;
  constexpr int kRowChunks = kKeys / 8;
  for (int i = threadIdx.x; i < kChunk * kRowChunks; i += blockDim.x) {
    const int row = i / kRowChunks, n = i % kRowChunks, c = p.first_key + n * 8;
    const bool valid = row < chunk.tokens && c < a.dk;
    const int64_t from = valid ? row * a.front_stride + c : 0;
    if constexpr (!kSums) CopyAsync16(stage + At(row, n), q + from, valid);
    CopyAsync16(stage + at.k + At(row, n), k + from, valid);
  }
  if constexpr (!kSums) {
    // The scores of the states' output heads, which follow each other if there are several states.
    const bf16* scores = b.chunk.scores + (local * a.out_heads + first_out) * kChunk * kChunk;
    for (int i = threadIdx.x; i < p.states * kChunk * 8; i += blockDim.x) {
      CopyAsync16(stage + at.scores + i / (kChunk * 8) * kTileBytes + At(i / 8 % kChunk, i % 8),
                  scores + i * 8, true);
    }
  }
  const float* decays = b.decays + (local * a.state_heads + first_state) * 2 * kChunk;
  for (int i = threadIdx.x; i < p.states * kDecayBytes / 16; i += blockDim.x)
    CopyAsync16(stage + at.decays + i * 16, decays + i * 4, true);
  for (int i = threadIdx.x; i < kChunk * groups * 8; i += blockDim.x) {
    const int row = i / (groups * 8), n = i % (groups * 8), group = n / 8;
    const int state = first_state + (p.states > 1 ? group : 0);
    const int col = p.states > 1 ? n % 8 * 8 : first_column + n * 8;
    const bool valid = row < chunk.tokens && col < a.dv;
    const bf16* from = rows + (valid ? row : 0) * a.front_stride + a.v_offset +
                       state / (a.state_heads / a.v_heads) * a.dv + (valid ? col : 0);
    CopyAsync16(stage + at.v + At(row, n), from, valid);
  }
}

// v^T as left operand, 16 columns by 16 tokens at a time.
__device__ __forceinline__ void LoadValues(uint32_t tile, uint32_t (&v)[4][4]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, m = lane / 8, r = lane % 8;
#pragma unroll
  for (int s = 0; s < 4; ++s)
    LoadMatrix4Transposed(v[s], tile + At(s * 16 + m / 2 * 8 + r, warp * 2 + m % 2));
}
__device__ __forceinline__ uint32_t ScalePair(uint32_t pair, float2 by) {
  return PackBf16(LowBf16(pair) * by.x, HighBf16(pair) * by.y);
}
// Each token's values times `scales` (kChunk).
__device__ __forceinline__ void ScaleValues(const float* scales, uint32_t (&v)[4][4]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int s = 0; s < 4; ++s) {
    const float2 low = *reinterpret_cast<const float2*>(scales + s * 16 + 2 * t);
    const float2 high = *reinterpret_cast<const float2*>(scales + s * 16 + 8 + 2 * t);
    v[s][0] = ScalePair(v[s][0], low);
    v[s][1] = ScalePair(v[s][1], low);
    v[s][2] = ScalePair(v[s][2], high);
    v[s][3] = ScalePair(v[s][3], high);
  }
}

// o = S^T q^T: (16 columns of v a warp, tokens).
template <int kKeys>
__device__ __forceinline__ void QueryState(const float (&state)[kKeys / 2], uint32_t q,
                                           float (&o)[32]) {
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
    const uint64_t right = SwizzledTile(q + tile * kTileBytes);
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < 4; ++step)
      WgmmaRegisters<64, false>::Run(o, left[tile % 2][step], right + step * 2);
    WgmmaCommit();
  }
  WgmmaWait<0>();
}

// Through shared memory (rows: kChunk * 32 bytes of the warp's), so that a token's 16 columns
// leave as two 16-byte stores.
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

// kSums: only what the span adds to a state of zeros, into the span's carry.
template <int kKeys, bool kSums, int kGroups, int kStages, int kBlocks>
__global__ void __launch_bounds__(kGroups* kGroupThreads, kBlocks)
    LinearChunkKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBuffers b,
                      const __grid_constant__ Params p) {
  constexpr int kTiles = kKeys / 8;
  extern __shared__ char unaligned[];
  char* shared = unaligned + (1024 - SharedAddress(unaligned) % 1024) % 1024;
  const int groups = blockDim.x / kGroupThreads, group = threadIdx.x / kGroupThreads;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const Stage at = StageLayout<kKeys>(groups, p.states);
  const int first_state = blockIdx.y * p.states, first_column = blockIdx.x * groups * 64;
  const int of_block = p.states > 1 ? group : 0;  // the warpgroup's state, of the block's
  const int state_head = first_state + of_block, outs = a.out_heads / a.state_heads;
  const int out_head = state_head * outs + p.member;
  // The warp's first column of v, and the lane's: this one and + 8.
  const int v_warp = first_column + (p.states > 1 ? 0 : group * 64) + warp % 4 * 16;
  const int v_lane = v_warp + g;
  WaitForPredecessor();
  const SpanMeta span = MetaArray<SpanMeta>(a.meta, a.meta->spans)[p.first_span + blockIdx.z];
  const ChunkMeta* chunks = MetaArray<ChunkMeta>(a.meta, a.meta->chunks);
  const auto fill = [&](int c) {
    if (c < span.chunks) {
      FillStage<kKeys, kSums>(a, b, p, chunks[span.chunk + c], span.chunk + c - p.first_chunk,
                              first_state, first_column,
                              SharedAddress(shared) + c % kStages * at.bytes, at);
    }
    CommitCopies();
  };
  fill(0);

  const int64_t size = static_cast<int64_t>(a.dk) * a.dv;
  float* slot = a.states + span.slot * a.slot_stride + state_head * size;
  float* carry =
      b.chunk.carry + (static_cast<int64_t>(span.carry) * a.state_heads + state_head) * size;
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

  float span_decay = 1.0f;
  for (int c = 0; c < span.chunks; ++c) {
    if (kStages == 2) fill(c + 1);
    WaitCopies<kStages - 1>();
    FenceForWgmma();
    __syncthreads();
    char* const stage_at = shared + c % kStages * at.bytes;
    const uint32_t stage = SharedAddress(stage_at);
    const ChunkMeta chunk = chunks[span.chunk + c];
    const float* decays =
        reinterpret_cast<const float*>(stage_at + at.decays + of_block * kDecayBytes);
    uint32_t v[4][4];
    LoadValues(stage + at.v + group * kTileBytes, v);
    if constexpr (!kSums) {
      float o[32] = {};
      QueryState<kKeys>(state, stage, o);
      float* partial =
          b.chunk.partial + static_cast<int64_t>(chunk.row) * a.out_heads * a.dv + out_head * a.dv;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float2 d = *reinterpret_cast<const float2*>(decays + n * 8 + 2 * t);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          o[n * 4 + i] *= i % 2 == 0 ? d.x : d.y;
          const int token = n * 8 + 2 * t + i % 2, col = v_lane + i / 2 * 8;
          if (!p.first_pass && token < chunk.tokens && col < a.dv)
            o[n * 4 + i] += partial[static_cast<int64_t>(token) * a.out_heads * a.dv + col];
        }
      }
      if (p.first_pass) {
        // Scores above the diagonal are zeros.
        const uint64_t scores = SwizzledTile(stage + at.scores + of_block * kTileBytes);
        WgmmaFence();
#pragma unroll
        for (int s = 0; s < 4; ++s) WgmmaRegisters<64, false>::Run(o, v[s], scores + s * 2);
        WgmmaCommit();
        WgmmaWait<0>();
      }
      if (p.last_pass) {
        StoreOutputs(
            o, shared + kStages * at.bytes + warp * kChunk * 32, chunk.tokens, a.dv - v_warp,
            p.out + chunk.row * p.out_stride + static_cast<int64_t>(out_head) * a.dv + v_warp,
            p.out_stride);
      } else {
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int token = n * 8 + 2 * t + i % 2, col = v_lane + i / 2 * 8;
            if (token < chunk.tokens && col < a.dv)
              partial[static_cast<int64_t>(token) * a.out_heads * a.dv + col] = o[n * 4 + i];
          }
        }
      }
    }
    const float decay = decays[kChunk - 1];
    span_decay *= decay;
#pragma unroll
    for (int i = 0; i < kTiles * 4; ++i) state[i] *= decay;
    ScaleValues(decays + kChunk, v);
    const uint64_t k = SwizzledTile(stage + at.k, kTileBytes);
    WgmmaFence();
#pragma unroll
    for (int s = 0; s < 4; ++s)
      WgmmaRegisters<kKeys, true>::Run(state, v[s], k + s * (16 * 128 >> 4));
    WgmmaCommit();

    WgmmaWait<0>();
    __syncthreads();
    if (kStages == 1) fill(c + 1);
  }

  if (kSums && blockIdx.x == 0 && (p.states > 1 || group == 0)) {
    // The whole span's decay, for the scan.
    float* to =
        b.chunk.span_decay +
        (static_cast<int64_t>(span.carry) * a.state_heads + state_head) * b.chunk.key_stride +
        p.first_key;
    for (int i = threadIdx.x % kGroupThreads; i < kKeys; i += kGroupThreads) to[i] = span_decay;
  }
  // A whole span's state comes from the scan, so that it is the same however the prompt was cut.
  if (kSums || (span.carry < 0 && p.member == outs - 1)) {
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

// True if runs of `states` states share their query and their key.
bool Share(const LinearArgs& a, int states) {
  return a.out_heads == a.state_heads && a.state_heads / a.q_heads % states == 0 &&
         a.state_heads / a.k_heads % states == 0;
}

template <int kKeys, bool kSums, int kGroups, int kStages, int kBlocks>
cudaError_t LaunchShape(const LinearArgs& a, const LinearBuffers& b, Params p, int spans,
                        cudaStream_t stream) {
  const auto kernel = LinearChunkKernel<kKeys, kSums, kGroups, kStages, kBlocks>;
  const int tiles = (a.dv + 63) / 64;
  int groups = tiles < kGroups ? tiles : kGroups;
  p.states = 1;
  if (tiles == 1 && kGroups > 1 && Share(a, kGroups)) p.states = groups = kGroups;
  const int bytes =
      1024 + kStages * StageLayout<kKeys>(groups, p.states).bytes + groups * 4 * kChunk * 32;
  const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (prepared != cudaSuccess) return prepared;
  const dim3 grid(p.states > 1 ? 1 : (tiles + groups - 1) / groups, a.state_heads / p.states,
                  spans);
  return Launch(kernel, grid, groups * kGroupThreads, bytes, stream, 1, a, b, p);
}

// Two stages and 128 columns of v a block want a Hopper's shared memory.
template <int kKeys, bool kSums>
cudaError_t LaunchPass(const LinearArgs& a, const LinearBuffers& b, const Params& p, int spans,
                       cudaStream_t stream) {
  if (!HasHopperCode()) return LaunchShape<kKeys, kSums, 1, 1, 1>(a, b, p, spans, stream);
  return LaunchShape<kKeys, kSums, 2, 2, 1>(a, b, p, spans, stream);
}

template <bool kSums>
cudaError_t LaunchPasses(const LinearArgs& a, const LinearBuffers& b, Params p, int spans,
                         cudaStream_t stream) {
  if (spans == 0) return cudaSuccess;
  for (int key = 0; key < b.chunk.key_stride; key += kPassKeys) {
    p.first_key = key;
    p.first_pass = key == 0;
    p.last_pass = key + kPassKeys >= b.chunk.key_stride;
    const int keys = b.chunk.key_stride - key < kPassKeys ? b.chunk.key_stride - key : kPassKeys;
    const cudaError_t error = keys <= 64    ? LaunchPass<64, kSums>(a, b, p, spans, stream)
                              : keys <= 128 ? LaunchPass<128, kSums>(a, b, p, spans, stream)
                              : keys <= 192 ? LaunchPass<192, kSums>(a, b, p, spans, stream)
                                            : LaunchPass<256, kSums>(a, b, p, spans, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t LaunchLinearSpanSums(const LinearArgs& args, const LinearBuffers& buffers,
                                 const ChunkRange& range, cudaStream_t stream) {
  const Params p = {.first_chunk = range.first_chunk, .first_span = range.first_span};
  return LaunchPasses<true>(args, buffers, p, range.whole_spans, stream);
}

cudaError_t LaunchLinearChunks(const LinearArgs& args, const LinearBuffers& buffers, bf16* out,
                               int64_t out_stride, const ChunkRange& range, cudaStream_t stream) {
  Params p = {.first_chunk = range.first_chunk, .first_span = range.first_span};
  p.out = out;
  p.out_stride = out_stride;
  cudaError_t error = cudaSuccess;
  for (; p.member < args.out_heads / args.state_heads && error == cudaSuccess; ++p.member)
    error = LaunchPasses<false>(args, buffers, p, range.spans, stream);
  return error;
}

}  // namespace sluice::cuda
