// The normaliser of prompts, z <- D z + k, and what it adds to every token's q z: from what each
// chunk adds to z (in fp32), a scan over the chunks of a prompt from the slot's z on, and a product
// of every query with the z before its chunk. The sums within chunks come from linear_scores.cu.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kAhead = 8;  // chunks whose loads are in flight together

__device__ __forceinline__ const float* DecaysOf(const LinearArgs& a, const LinearBuffers& b,
                                                 int64_t local_chunk, int state) {
  return b.decays + (local_chunk * a.state_heads + state) * 2 * kChunk;
}

// key_sums: what a chunk adds to z.
__global__ void __launch_bounds__(kThreads)
    KeySumsKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBuffers b,
                  int first_chunk) {
  WaitForPredecessor();
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[first_chunk + blockIdx.x];
  const int state = blockIdx.y;
  const float* to_end = DecaysOf(a, b, blockIdx.x, state) + kChunk;
  const bf16* k = a.prompt_front + chunk.row * a.front_stride + a.k_offset +
                  state / (a.state_heads / a.k_heads) * a.dk;
  float* sums = b.key_sums + (static_cast<int64_t>(blockIdx.x) * a.state_heads + state) * a.dk;
  for (int c = threadIdx.x * 2; c < a.dk; c += kThreads * 2) {
    float low = 0.0f, high = 0.0f;
#pragma unroll 8
    for (int token = 0; token < chunk.tokens; ++token) {
      const uint32_t pair = *reinterpret_cast<const uint32_t*>(k + token * a.front_stride + c);
      low = fmaf(to_end[token], LowBf16(pair), low);
      high = fmaf(to_end[token], HighBf16(pair), high);
    }
    *reinterpret_cast<float2*>(sums + c) = make_float2(low, high);
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

// denominators += decay * q z, a warp a (token, output head).
__global__ void __launch_bounds__(kThreads)
    DenominatorsKernel(const __grid_constant__ LinearArgs a,
                       const __grid_constant__ LinearBuffers b, int first_chunk) {
  WaitForPredecessor();
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[first_chunk + blockIdx.x];
  const int out = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int state = out / (a.out_heads / a.state_heads);
  const float* z = b.key_sums + (static_cast<int64_t>(blockIdx.x) * a.state_heads + state) * a.dk;
  const float* from_begin = DecaysOf(a, b, blockIdx.x, state);
  for (int token = warp; token < chunk.tokens; token += kThreads / 32) {
    const int64_t row = static_cast<int64_t>(chunk.row) + token;
    const bf16* q = a.prompt_front + row * a.front_stride + out / (a.out_heads / a.q_heads) * a.dk;
    float sum = 0.0f;
    for (int c = lane * 2; c < a.dk; c += 64) {
      const uint32_t pair = *reinterpret_cast<const uint32_t*>(q + c);
      const float2 at = *reinterpret_cast<const float2*>(z + c);
      sum = fmaf(LowBf16(pair), at.x, sum);
      sum = fmaf(HighBf16(pair), at.y, sum);
    }
    sum = WarpSum(sum);
    if (lane == 0) b.denominators[row * a.out_heads + out] += from_begin[token] * sum;
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
