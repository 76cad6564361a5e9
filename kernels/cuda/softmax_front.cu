// The stage before the softmax core: a warp takes a head of q, of k or of v of one row through its
// norm and its turn by the row's position.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/softmax.h"
#include "kernels/mixer_math.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kHeld = kMostHeadWidth / 32;  // elements of a lane

// `x` (kMostHeadWidth) is the warp's shared memory.
__device__ void Head(const SoftmaxArgs& a, int64_t row, int64_t position, int head, float* x) {
  const int lane = threadIdx.x % 32;
  const bf16* in = a.in + row * a.in_stride;
  bf16* out = a.front + row * a.front_stride;
  const int keys = head - a.q_heads, values = keys - a.kv_heads;
  if (values >= 0) {
    const int64_t first = int64_t{a.q_heads + a.kv_heads} * a.dk;
    for (int i = lane; i < a.dv; i += 32)
      out[first + values * a.dv + i] = in[a.v_column + values * a.dv + i];
    return;
  }
  const bool query = keys < 0;
  in += query ? a.q_column + head * a.dk : a.k_column + keys * a.dk;
  out += head * a.dk;  // keys are behind queries
  const float* weight = query ? a.q_norm : a.k_norm;
  float sum = 0.0f;
  for (int i = lane; i < a.dk; i += 32) {
    const float value = __bfloat162float(in[i]);
    sum = fmaf(value, value, sum);
    x[i] = value;
  }
  if (weight != nullptr) {
    const float factor = 1.0f / sqrtf(WarpSum(sum) / static_cast<float>(a.dk) + a.norm_eps);
    for (int i = lane; i < a.dk; i += 32) x[i] *= factor * weight[i];
  }
  __syncwarp();
  const int half = a.rope_dims / 2;
  if (half > 0) {
    // The models' own code rounds the angle to fp32 too; its sine and cosine are exact.
    const float at = static_cast<float>(position) / a.rope_divisor;
    for (int i = lane; i < half; i += 32) {
      mixer_math::Rotation turn = mixer_math::RotationAt(at * a.theta[i], 1);
      turn.cos *= a.rope_scale;
      turn.sin *= a.rope_scale;
      mixer_math::Rotate(turn, &x[i], &x[half + i]);
    }
    __syncwarp();
  }
  for (int i = lane; i < a.dk; i += 32) out[i] = __float2bfloat16_rn(x[i]);
}

__global__ void __launch_bounds__(kThreads)
    SoftmaxDecodeFrontKernel(const __grid_constant__ SoftmaxArgs a) {
  __shared__ float heads[kWarps][kMostHeadWidth];
  WaitForPredecessor();
  const int row = blockIdx.x, head = blockIdx.y * kWarps + threadIdx.x / 32;
  if (row >= a.meta->num_decode || head >= a.q_heads + 2 * a.kv_heads) return;
  Head(a, row, MetaArray<RowMeta>(a.meta, a.meta->rows)[row].position, head,
       heads[threadIdx.x / 32]);
}

__global__ void __launch_bounds__(kThreads)
    SoftmaxPromptFrontKernel(const __grid_constant__ SoftmaxArgs a) {
  __shared__ float heads[kWarps][kMostHeadWidth];
  WaitForPredecessor();
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[blockIdx.x];
  const int head = blockIdx.y * kWarps + threadIdx.x / 32;
  if (head >= a.q_heads + 2 * a.kv_heads) return;
  for (int t = 0; t < chunk.tokens; ++t) {
    Head(a, int64_t{chunk.row} + t, chunk.position + t, head, heads[threadIdx.x / 32]);
    __syncwarp();
  }
}

}  // namespace

cudaError_t LaunchSoftmaxFront(const SoftmaxArgs& args, int decode, int chunks,
                               cudaStream_t stream) {
  const int blocks = (args.q_heads + 2 * args.kv_heads + kWarps - 1) / kWarps;
  if (decode > 0) {
    const cudaError_t error =
        Launch(SoftmaxDecodeFrontKernel, dim3(decode, blocks), kThreads, 0, stream, 1, args);
    if (error != cudaSuccess) return error;
  }
  if (chunks == 0) return cudaSuccess;
  return Launch(SoftmaxPromptFrontKernel, dim3(chunks, blocks), kThreads, 0, stream, 1, args);
}

}  // namespace sluice::cuda
