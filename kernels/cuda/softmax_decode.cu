// The softmax core for decode rows: their keys and values are kept first, then a block for each
// head of keys and part of a row's key blocks, then a block for each row, which merges the parts.
#include "kernels/cuda/softmax_row.cuh"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ RowMeta MetaOf(const SoftmaxArgs& a, int row) {
  return MetaArray<RowMeta>(a.meta, a.meta->rows)[row];
}

__global__ void __launch_bounds__(kThreads) KeepKernel(const __grid_constant__ SoftmaxArgs a) {
  WaitForPredecessor();
  const int row = blockIdx.x;
  if (row >= a.meta->num_decode) return;
  const RowMeta meta = MetaOf(a, row);
  KeepRow(a, meta.slot, meta.pages, meta.position, row, threadIdx.x, kThreads);
}

__device__ __forceinline__ float* PartOf(const SoftmaxArgs& a, int row, int part, int head) {
  return a.parts +
         ((static_cast<int64_t>(row) * kSoftmaxParts + part) * a.q_heads + head) * (a.dv + 2);
}

template <int kGroup, int kColumns>
__global__ void __launch_bounds__(kRowThreads)
    SoftmaxDecodeKernel(const __grid_constant__ SoftmaxArgs a) {
  __shared__ RowShared<kGroup, kColumns> shared;
  WaitForPredecessor();
  const int row = blockIdx.z, part = blockIdx.x, groups = a.q_heads / a.kv_heads;
  if (row >= a.meta->num_decode) return;
  const RowMeta meta = MetaOf(a, row);
  const Keys keys(a, meta.slot, meta.pages, meta.position + 1, 0, blockIdx.y);
  for (int g0 = 0; g0 < groups; g0 += kGroup) {
    const int first = blockIdx.y * groups + g0, count = min(kGroup, groups - g0);
    RowAttention<kGroup, kColumns> heads(a, keys, row, meta.position, first, count, &shared);
    heads.Run(part, kSoftmaxParts);
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      if (g >= count) break;
      float* to = PartOf(a, row, part, first + g);
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        const int c = threadIdx.x + i * kRowThreads;
        if (c < a.dv) to[c] = heads.Value(g, i);
      }
      if (threadIdx.x == 0) {
        to[a.dv] = heads.Max(g);
        to[a.dv + 1] = heads.Sum(g);
      }
    }
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads)
    MergeKernel(const __grid_constant__ SoftmaxArgs a, float* o) {
  WaitForPredecessor();
  const int row = blockIdx.x;
  if (row >= a.meta->num_decode) return;
  for (int i = threadIdx.x; i < a.q_heads * a.dv; i += kThreads) {
    const int head = i / a.dv, c = i - head * a.dv;
    float largest = -INFINITY;
    for (int part = 0; part < kSoftmaxParts; ++part)
      largest = fmaxf(largest, PartOf(a, row, part, head)[a.dv]);
    float value = 0.0f, sum = 0.0f;
    for (int part = 0; part < kSoftmaxParts; ++part) {
      const float* from = PartOf(a, row, part, head);
      if (from[a.dv + 1] == 0.0f) continue;  // no block was this part's
      const float factor = Exp2(from[a.dv] - largest);
      value = fmaf(factor, from[c], value);
      sum = fmaf(factor, from[a.dv + 1], sum);
    }
    o[static_cast<int64_t>(row) * a.q_heads * a.dv + i] = value / sum;
  }
}

}  // namespace

cudaError_t LaunchSoftmaxDecode(const SoftmaxArgs& args, float* o, int grid_rows,
                                cudaStream_t stream) {
  cudaError_t error = Launch(KeepKernel, grid_rows, kThreads, 0, stream, 1, args);
  if (error != cudaSuccess) return error;
  error = ForRowShape(args, [&]<int kGroup, int kColumns>() {
    return Launch(SoftmaxDecodeKernel<kGroup, kColumns>,
                  dim3(kSoftmaxParts, args.kv_heads, grid_rows), kRowThreads, 0, stream, 1, args);
  });
  if (error != cudaSuccess) return error;
  return Launch(MergeKernel, grid_rows, kThreads, 0, stream, 1, args, o);
}

}  // namespace sluice::cuda
