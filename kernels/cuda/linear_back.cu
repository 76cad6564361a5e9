// The end of a generic linear mixer for prompt rows, in place: a warp for each span of columns that
// are normed together, or a block for a row.
#include "kernels/cuda/linear_back.cuh"

namespace sluice::cuda {
namespace {

__global__ void __launch_bounds__(kBackThreads, 5)
    LinearBackKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBack b,
                     const float* denominators, int first, int rows) {
  __shared__ float partial[kBackWarps];
  WaitForPredecessor();
  const bool by_warp = BackSpansPerWarp(a, b);
  const int spans = BackSpans(a, b);
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kBackWarps + threadIdx.x / 32;
  const int64_t i = by_warp ? item / spans : blockIdx.x;
  if (i >= rows) return;
  const int64_t row = first + i;
  const BackRow<bf16, bf16> back(
      a, b, row, b.out + row * b.out_stride, a.prompt_front + row * a.front_stride,
      denominators == nullptr ? nullptr : denominators + row * a.out_heads);
  if (by_warp) {
    back.RunSpan(static_cast<int>(item % spans));
  } else {
    back.Run(partial);
  }
}

}  // namespace

cudaError_t LaunchLinearBack(const LinearArgs& args, const LinearBack& back,
                             const LinearBuffers& buffers, int first, int rows,
                             cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const float* denominators = args.normalisers == nullptr ? nullptr : buffers.denominators;
  const int span = back.norm == BackNorm::kNone ? args.dv : back.norm_span;
  const int64_t spans = args.out_heads * args.dv / span;
  const int64_t blocks = span <= kWarpSpan ? (rows * spans + kBackWarps - 1) / kBackWarps : rows;
  return Launch(LinearBackKernel, static_cast<unsigned>(blocks), kBackThreads, 0, stream, 1, args,
                back, denominators, first, rows);
}

}  // namespace sluice::cuda
