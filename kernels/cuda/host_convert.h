// Checkpoint matrices on their way to the device. Host code only.
#ifndef SLUICE_KERNELS_CUDA_HOST_CONVERT_H_
#define SLUICE_KERNELS_CUDA_HOST_CONVERT_H_

#include <cstdint>
#include <vector>

#include "kernels/tensor.h"

namespace sluice::cuda {

// Row `row` of a matrix as bf16, to the nearest and ties to even, into to (cols).
void RowToBf16(const MatrixView& m, int64_t row, uint16_t* to);

// All elements as fp32, into to (rows * cols).
void ToFloat(const MatrixView& m, float* to);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_HOST_CONVERT_H_
