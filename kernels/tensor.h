// Matrices, vectors and activations as a backend holds them. Shapes are row-major, last dimension
// contiguous.
#ifndef SLUICE_KERNELS_TENSOR_H_
#define SLUICE_KERNELS_TENSOR_H_

#include <cstdint>

namespace sluice {

enum class DType : uint8_t { kF32, kF16, kBF16 };

inline constexpr int64_t DTypeBytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

// A matrix as a checkpoint stores it, in host memory.
struct MatrixView {
  const void* data = nullptr;  // (rows, cols)
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

// Handles to memory that a backend owns until it is destroyed. What is behind `data` is its own
// affair.
struct Vector {  // fp32
  const float* data = nullptr;
  int64_t size = 0;
};
struct Linear {  // y = x W^T, W (n, k), in the checkpoint's dtype and the backend's layout
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t n = 0;
  int64_t k = 0;
};
struct Activation {  // (rows, cols), in the dtype the backend computes in
  void* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_TENSOR_H_
