#include "kernels/cuda/device.cuh"
#include "kernels/cuda/page_copies.h"
#include "kernels/state_table.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 256;

template <bool kGather>
__global__ void __launch_bounds__(kThreads) PageCopyKernel(const __grid_constant__ PagePiece p) {
  WaitForPredecessor();
  const int64_t e = p.begin + int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (e >= p.end) return;
  const int64_t token = e / p.cols, c = e - token * p.cols;
  bf16* at = p.pages + p.ids[token / kPageTokens] * p.page_stride + token % kPageTokens * p.row + c;
  if constexpr (kGather) {
    p.words[e - p.begin] = __bfloat162float(*at);
  } else {
    *at = __float2bfloat16_rn(p.words[e - p.begin]);
  }
}

template <bool kGather>
cudaError_t LaunchCopy(const PagePiece& piece, cudaStream_t stream) {
  const int64_t blocks = (piece.end - piece.begin + kThreads - 1) / kThreads;
  if (blocks <= 0) return cudaSuccess;
  return Launch(PageCopyKernel<kGather>, static_cast<unsigned>(blocks), kThreads, 0, stream, 1,
                piece);
}

}  // namespace

cudaError_t LaunchGatherPages(const PagePiece& piece, cudaStream_t stream) {
  return LaunchCopy<true>(piece, stream);
}
cudaError_t LaunchScatterPages(const PagePiece& piece, cudaStream_t stream) {
  return LaunchCopy<false>(piece, stream);
}

}  // namespace sluice::cuda
