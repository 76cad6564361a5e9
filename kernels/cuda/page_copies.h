// Pieces of what pages keep between their own bf16 and the fp32 of a state's canonical form. All
// pointers are device memory.
#ifndef SLUICE_KERNELS_CUDA_PAGE_COPIES_H_
#define SLUICE_KERNELS_CUDA_PAGE_COPIES_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sluice::cuda {

// A run of one part's elements: of consecutive tokens, each of `cols`.
struct PagePiece {
  static constexpr int kMostPages = 512;

  __nv_bfloat16* pages = nullptr;  // of the part in page 0
  int64_t page_stride = 0;         // elements
  int64_t row = 0;                 // elements between tokens
  int64_t cols = 0;
  int64_t begin = 0, end = 0;  // elements of the part, counted from the first token of ids[0]
  float* words = nullptr;      // of element `begin`
  int32_t ids[kMostPages] = {};
};

cudaError_t LaunchGatherPages(const PagePiece& piece, cudaStream_t stream);
cudaError_t LaunchScatterPages(const PagePiece& piece, cudaStream_t stream);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_PAGE_COPIES_H_
