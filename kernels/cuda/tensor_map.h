// Descriptors of bf16 matrices for the tensor memory accelerator.
#ifndef SLUICE_KERNELS_CUDA_TENSOR_MAP_H_
#define SLUICE_KERNELS_CUDA_TENSOR_MAP_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace sluice::cuda {

// Makes a map of a matrix (rows, cols) without gaps, cols a multiple of 8, in boxes of `box_rows`
// rows of 64 columns, swizzled as wgmma.cuh's SwizzledTile says. Everything outside the matrix
// reads as zeros. Any thread.
cudaError_t MakeTensorMap(const void* matrix, int64_t rows, int64_t cols, int box_rows,
                          CUtensorMap* map);

// The map of heads that lie side by side: (rows, heads, width), `stride` elements between rows,
// width and stride multiples of 8, in boxes of 64 rows of 64 columns of a head, swizzled likewise;
// columns past a head's width read as zeros. Any thread.
cudaError_t MakeHeadsMap(const void* first, int64_t rows, int64_t stride, int heads, int width,
                         CUtensorMap* map);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_TENSOR_MAP_H_
