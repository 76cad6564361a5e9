// What the delta rule's models do behind the front that they share with linear mixers: norms of
// queries and keys, a warp a head, and the gates of key channels.
#include "kernels/cuda/delta.h"
#include "kernels/cuda/device.cuh"
#include "kernels/mixer_math.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kHeld = kMostDeltaKeys / 32;  // elements of a lane
constexpr float kNormEps = 1e-6f;

__global__ void __launch_bounds__(kThreads) DeltaNormsKernel(const __grid_constant__ DeltaNorms a) {
  WaitForPredecessor();
  const int lane = threadIdx.x % 32, heads = a.q_heads + a.k_heads;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int64_t row = item / heads;
  const int head = static_cast<int>(item % heads);
  if (row >= a.meta->num_rows) return;
  const bool query = head < a.q_heads;
  const QkNorm norm = query ? a.q_norm : a.k_norm;
  float* x = a.front + row * a.stride + static_cast<int64_t>(head) * a.dk;
  float held[kHeld];
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int c = lane + i * 32;
    held[i] = c < a.dk ? x[c] : 0.0f;
    sum = norm == QkNorm::kL2 ? fmaf(held[i], held[i], sum) : sum + fabsf(held[i]);
  }
  sum = WarpSum(sum);
  float scale = query ? a.q_scale : 1.0f;
  if (norm == QkNorm::kL2) scale *= 1.0f / sqrtf(sum + kNormEps);
  if (norm == QkNorm::kSumAbs) scale *= 1.0f / fmaxf(sum, kNormEps);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int c = lane + i * 32;
    if (c < a.dk) x[c] = held[i] * scale;
  }
}

__global__ void __launch_bounds__(kThreads) KdaGatesKernel(const __grid_constant__ KdaGates a) {
  WaitForPredecessor();
  const int64_t row = blockIdx.x;
  const int channels = a.state_heads * a.dk, c = blockIdx.y * kThreads + threadIdx.x;
  if (row >= a.meta->num_rows || c >= channels) return;
  float* x = a.loss + row * channels + c;
  const float rate = expf(a.a_log[c / a.dk]);
  *x = expm1f(a.bounded ? a.log_gate_min * mixer_math::Sigmoid(rate * *x)
                        : -rate * mixer_math::Softplus(*x));
}

}  // namespace

cudaError_t LaunchDeltaNorms(const DeltaNorms& args, int grid_rows, cudaStream_t stream) {
  const int64_t items = static_cast<int64_t>(grid_rows) * (args.q_heads + args.k_heads);
  if (items == 0) return cudaSuccess;
  return Launch(DeltaNormsKernel, static_cast<unsigned>((items + kWarps - 1) / kWarps), kThreads, 0,
                stream, 1, args);
}

cudaError_t LaunchKdaGates(const KdaGates& args, int grid_rows, cudaStream_t stream) {
  if (grid_rows == 0) return cudaSuccess;
  const dim3 grid(grid_rows, (args.state_heads * args.dk + kThreads - 1) / kThreads);
  return Launch(KdaGatesKernel, grid, kThreads, 0, stream, 1, args);
}

}  // namespace sluice::cuda
