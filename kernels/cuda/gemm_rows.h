// y = x W^T for decode rows and short prompts, with one order of summation over K whatever the
// number of rows is: K is cut into kSlices slices of whole tiles of 64; each slice is one chain of
// tensor-core steps; the slices' sums are added in their order. How many blocks share a product,
// and how many rows a block takes, changes no bit.
#ifndef SLUICE_KERNELS_CUDA_GEMM_ROWS_H_
#define SLUICE_KERNELS_CUDA_GEMM_ROWS_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace sluice::cuda {

enum class RowStore : uint8_t {
  kBf16,    // y = acc
  kAdd,     // y (fp32) += acc
  kFloat,   // y (fp32) = acc
  kSwiGlu,  // y (bf16) = silu(gate) * up; W in blocks of kGateUpBlock rows of each, n counts both
};

struct GemmRowsArgs {
  const __nv_bfloat16* x = nullptr;  // (rows, x_stride), zeros past K
  int64_t x_stride = 0;              // Stride(K)
  const __nv_bfloat16* w = nullptr;  // (n, x_stride)
  void* y = nullptr;
  int64_t y_stride = 0;  // a multiple of 4; up to 3 zeros are written past n_valid
  int rows = 0;
  int n = 0;        // kSwiGlu: a multiple of 2 * kGateUpBlock
  int n_valid = 0;  // columns of y to store
  RowStore store = RowStore::kBf16;

  // An RMSNorm of x, which holds the values times its weights: a row's sums are divided by its root
  // mean square, from the squares that `next_squares` left. Null: none.
  const float* squares = nullptr;
  int norm_width = 0;
  float norm_eps = 0.0f;
  // kAdd: x and squares for the product that takes the RMSNorm of y. Null: none.
  const float* next_norm = nullptr;  // its weights
  __nv_bfloat16* next_x = nullptr;   // (rows, y_stride)
  float* next_squares = nullptr;     // (rows, y_stride / kSquaresColumns)
};

// Columns whose squares are summed together.
inline constexpr int kSquaresColumns = 64;

// The kernel that it launches changes past 8, 16, 32, 64, 128 and 256 rows.
cudaError_t LaunchGemmRows(const GemmRowsArgs& args, cudaStream_t stream);
// Prompts of up to so many tokens are better off here than in the library's products, beside decode
// rows above all. 0 without Hopper's code: many rows together, which short prompts can be too, take
// several times as long in what is launched there.
int32_t LongestShortPrompt();
// True if LaunchGemmRows takes and leaves norms.
bool GemmRowsTakesNorms();

// The same without norms on any GPU from sm_80 up; what LaunchGemmRows does where the code is not
// Hopper's own.
cudaError_t LaunchPortableGemmRows(const GemmRowsArgs& args, cudaStream_t stream);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_GEMM_ROWS_H_
