// The normaliser of prompts, z <- D z + k, and what it adds to every token's q z: from what each
// chunk adds to z (in fp32), a scan over the chunks of a prompt from the slot's z on, and a product
// of every query with the z before its chunk. The sums within chunks come from linear_scores.cu.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kAhead = 32;  // chunks whose loads are in flight together

struct Eight {
  float at[8];
};
__device__ __forceinline__ Eight LoadEight(const bf16* p) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  return {{LowBf16(v.x), HighBf16(v.x), LowBf16(v.y), HighBf16(v.y), LowBf16(v.z), HighBf16(v.z),
           LowBf16(v.w), HighBf16(v.w)}};
}

__device__ __forceinline__ const float* DecaysOf(const LinearArgs& a, const LinearBuffers& b,
                                                 int64_t local_chunk, int state) {
  return b.decays + (local_chunk * a.state_heads + state) * 2 * kChunk;
}

// key_sums: what a chunk adds to z. A warp takes 16 tokens, a lane 8 channels at a time; the warps'
// sums meet in shared memory.
__global__ void __launch_bounds__(kThreads)
    KeySumsKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBuffers b,
                  int first_chunk) {
  __shared__ float partial[kWarps][256];
  WaitForPredecessor();
  constexpr int kTokens = kChunk / kWarps;
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[first_chunk + blockIdx.x];
  const int state = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float* to_end = DecaysOf(a, b, blockIdx.x, state) + kChunk + warp * kTokens;
  const bf16* k = a.prompt_front + (chunk.row + warp * kTokens) * a.front_stride + a.k_offset +
                  state / (a.state_heads / a.k_heads) * a.dk;
  float* sums = b.key_sums + (static_cast<int64_t>(blockIdx.x) * a.state_heads + state) * a.dk;
  const int tokens = min(kTokens, chunk.tokens - warp * kTokens);
  for (int first = 0; first < a.dk; first += 256) {
    const int c = first + lane * 8;
    Eight sum = {};
    if (c < a.dk) {
#pragma unroll
      for (int i = 0; i < kTokens; ++i) {
        if (i >= tokens) continue;
        const Eight x = LoadEight(k + i * a.front_stride + c);
        const float factor = to_end[i];
#pragma unroll
        for (int j = 0; j < 8; ++j) sum.at[j] = fmaf(factor, x.at[j], sum.at[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) partial[warp][lane * 8 + j] = sum.at[j];
    __syncthreads();
    for (int i = threadIdx.x; i < 256 && first + i < a.dk; i += kThreads) {
      float total = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total += partial[w][i];
      sums[first + i] = total;
    }
    __syncthreads();
  }
}

// key_sums: z before each chunk; the slots: z after the wave's last. By the blocks of each
// segment's first chunk in this wave.
__global__ void __launch_bounds__(kThreads)
    KeyScanKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBuffers b,
                  int first_chunk, int chunks) {
  WaitForPredecessor();
  const ChunkMeta* meta = MetaArray<ChunkMeta>(a.meta, a.meta->chunks) + first_chunk;
  const int begin = blockIdx.x, state = blockIdx.y, c = blockIdx.z * kThreads + threadIdx.x;
  if (begin > 0 && meta[begin].offset != 0) return;
  if (c >= a.dk) return;
  int end = begin + 1;
  while (end < chunks && meta[end - 1].last == 0) ++end;
  float* slot =
      a.normalisers + meta[begin].slot * a.slot_stride + static_cast<int64_t>(state) * a.dk + c;
  float z = *slot;
  for (int first = begin; first < end; first += kAhead) {
    float sums[kAhead], decay[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= end) break;
      sums[i] = b.key_sums[(static_cast<int64_t>(first + i) * a.state_heads + state) * a.dk + c];
      decay[i] = DecaysOf(a, b, first + i, state)[kChunk - 1];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= end) break;
      b.key_sums[(static_cast<int64_t>(first + i) * a.state_heads + state) * a.dk + c] = z;
      z = fmaf(decay[i], z, sums[i]);
    }
  }
  *slot = z;
}

// denominators += decay * q z. A warp takes 16 tokens of an output head, a lane 8 channels at a
// time.
__global__ void __launch_bounds__(kThreads)
    DenominatorsKernel(const __grid_constant__ LinearArgs a,
                       const __grid_constant__ LinearBuffers b, int first_chunk) {
  WaitForPredecessor();
  constexpr int kTokens = kChunk / kWarps;
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[first_chunk + blockIdx.x];
  const int out = blockIdx.y, first = threadIdx.x / 32 * kTokens, lane = threadIdx.x % 32;
  const int state = out / (a.out_heads / a.state_heads), tokens = chunk.tokens - first;
  const float* z = b.key_sums + (static_cast<int64_t>(blockIdx.x) * a.state_heads + state) * a.dk;
  const float* from_begin = DecaysOf(a, b, blockIdx.x, state) + first;
  const int64_t row = static_cast<int64_t>(chunk.row) + first;
  const bf16* q = a.prompt_front + row * a.front_stride + out / (a.out_heads / a.q_heads) * a.dk;
  float sums[kTokens] = {};
  for (int c = lane * 8; c < a.dk; c += 256) {
    Eight at;
#pragma unroll
    for (int j = 0; j < 8; ++j) at.at[j] = z[c + j];
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      if (i >= tokens) continue;
      const Eight x = LoadEight(q + i * a.front_stride + c);
#pragma unroll
      for (int j = 0; j < 8; ++j) sums[i] = fmaf(x.at[j], at.at[j], sums[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kTokens; ++i) {
    const float sum = WarpSum(sums[i]);
    if (lane == 0 && i < tokens)
      b.denominators[(row + i) * a.out_heads + out] += from_begin[i] * sum;
  }
}

}  // namespace

cudaError_t LaunchLinearNormaliser(const LinearArgs& args, const LinearBuffers& buffers,
                                   const ChunkRange& range, cudaStream_t stream) {
  if (args.normalisers == nullptr || range.chunks == 0) return cudaSuccess;
  cudaError_t error = Launch(KeySumsKernel, dim3(range.chunks, args.state_heads), kThreads, 0,
                             stream, 1, args, buffers, range.first_chunk);
  if (error != cudaSuccess) return error;
  const dim3 scans(range.chunks, args.state_heads, (args.dk + kThreads - 1) / kThreads);
  error = Launch(KeyScanKernel, scans, kThreads, 0, stream, 1, args, buffers, range.first_chunk,
                 range.chunks);
  if (error != cudaSuccess) return error;
  return Launch(DenominatorsKernel, dim3(range.chunks, args.out_heads), kThreads, 0, stream, 1,
                args, buffers, range.first_chunk);
}

}  // namespace sluice::cuda
