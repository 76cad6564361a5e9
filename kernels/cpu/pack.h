// This backend's layout of a matrix W (n, k): panels of 16 rows, transposed, [panels][k][16], so
// that the kernels read memory straight on and take 16 outputs from one vector line. Rows past n
// are zeros. The elements stay in the checkpoint's dtype; converting one to fp32 is exact, so when
// it happens changes no bit.
#ifndef SLUICE_KERNELS_CPU_PACK_H_
#define SLUICE_KERNELS_CPU_PACK_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace sluice {

inline constexpr int64_t kPanelRows = 16;
// In a SwiGLU's matrix each panel holds 8 rows of gate and the 8 rows of up that they multiply.
inline constexpr int64_t kPanelPairs = kPanelRows / 2;

inline constexpr int64_t PanelCount(int64_t n) { return (n + kPanelRows - 1) / kPanelRows; }
// Bytes of one panel of a matrix of `k` columns. Saturates.
inline int64_t PanelBytes(int64_t k, DType dtype) {
  return SaturatedProduct(k, kPanelRows * DTypeBytes(dtype));
}

struct PackedMatrix {
  HostBuffer buffer;
  Linear linear;  // points into `buffer`
};

// Several matrices of one dtype and width, stacked along rows. INVALID_ARGUMENT where they do not
// fit together.
absl::StatusOr<PackedMatrix> PackRows(absl::Span<const MatrixView> blocks, ThreadPool* pool);
// gate and up, both (intermediate, hidden), interleaved as above. `linear.n` is 2 * intermediate.
absl::StatusOr<PackedMatrix> PackGateUp(const MatrixView& gate, const MatrixView& up,
                                        ThreadPool* pool);

// Writes row `row` of a matrix that PackRows made, as fp32: out (k).
void UnpackRow(const Linear& w, int64_t row, float* out);

// `count` elements of `dtype` as fp32.
void ConvertToFloat(const void* data, DType dtype, int64_t count, float* out);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_PACK_H_
