// The short convolution on the q, k and v of prompt rows: depthwise, causal, then SiLU. Inputs
// before the step lie in the slot's tails, oldest first.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mixer.h"

namespace sluice::cuda {
namespace {

// A channel of q | k | v: where its weights and its tail are.
struct Channel {
  const float* weight;
  float* tail;  // of slot 0
  int tail_stride;
};

__device__ __forceinline__ Channel ChannelAt(const MixerLaunch& a, int c) {
  const int q_dim = a.heads * a.dk, k_dim = a.kv_heads * a.dk, v_dim = a.kv_heads * a.dv;
  if (c < q_dim)
    return {a.conv_q + static_cast<int64_t>(c) * a.taps, a.states + a.tail_q + c, q_dim};
  c -= q_dim;
  if (c < k_dim)
    return {a.conv_k + static_cast<int64_t>(c) * a.taps, a.states + a.tail_k + c, k_dim};
  c -= k_dim;
  return {a.conv_v + static_cast<int64_t>(c) * a.taps, a.states + a.tail_v + c, v_dim};
}

__device__ __forceinline__ int Channels(const MixerLaunch& a) {
  return a.heads * a.dk + a.kv_heads * (a.dk + a.dv);
}

// Input `i` of the segment whose first row of this step is `row`; negative ones are in the tail.
__device__ __forceinline__ float Input(const MixerLaunch& a, int64_t row, int i, int c,
                                       const float* tail, int stride) {
  if (i >= 0) return __bfloat162float(a.in[(row + i) * a.in_stride + c]);
  return tail[static_cast<int64_t>(i + a.taps - 1) * stride];
}

__global__ void __launch_bounds__(256)
    ShortConvKernel(const __grid_constant__ MixerLaunch a, bf16* out, int64_t out_stride,
                    int first_chunk) {
  WaitForPredecessor();
  const int c = blockIdx.y * 256 + threadIdx.x;
  if (c >= Channels(a)) return;
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[first_chunk + blockIdx.x];
  const Channel channel = ChannelAt(a, c);
  const float* tail = channel.tail + chunk.slot * a.slot_stride;
  const int64_t row = static_cast<int64_t>(chunk.row) - chunk.offset;
  for (int token = 0; token < chunk.tokens; ++token) {
    const int i = chunk.offset + token;
    float sum = 0.0f;
    for (int j = 0; j < a.taps; ++j) {
      sum += channel.weight[j] * Input(a, row, i - (a.taps - 1) + j, c, tail, channel.tail_stride);
    }
    out[(row + i) * out_stride + c] = __float2bfloat16_rn(Silu(sum));
  }
}

__global__ void __launch_bounds__(256)
    TailsKernel(const __grid_constant__ MixerLaunch a, int first_chunk) {
  WaitForPredecessor();
  const int c = blockIdx.y * 256 + threadIdx.x;
  if (c >= Channels(a)) return;
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[first_chunk + blockIdx.x];
  if (!chunk.last) return;
  const Channel channel = ChannelAt(a, c);
  float* tail = channel.tail + chunk.slot * a.slot_stride;
  const int64_t row = static_cast<int64_t>(chunk.row) - chunk.offset;
  const int length = chunk.offset + chunk.tokens;
  // Ascending: each entry comes from a later one or from this step.
  for (int j = 0; j < a.taps - 1; ++j) {
    tail[static_cast<int64_t>(j) * channel.tail_stride] =
        Input(a, row, length - (a.taps - 1) + j, c, tail, channel.tail_stride);
  }
}

dim3 Grid(const MixerLaunch& a, const ChunkRange& range) {
  const int channels = a.heads * a.dk + a.kv_heads * (a.dk + a.dv);
  return dim3(range.chunks, (channels + 255) / 256);
}

}  // namespace

cudaError_t LaunchShortConv(const MixerLaunch& args, const ChunkBuffers& buffers,
                            const ChunkRange& range, cudaStream_t stream) {
  return Launch(ShortConvKernel, Grid(args, range), 256, 0, stream, 1, args, buffers.conv,
                buffers.conv_stride, range.first_chunk);
}

cudaError_t LaunchShortConvTails(const MixerLaunch& args, const ChunkRange& range,
                                 cudaStream_t stream) {
  return Launch(TailsKernel, Grid(args, range), 256, 0, stream, 1, args, range.first_chunk);
}

}  // namespace sluice::cuda
