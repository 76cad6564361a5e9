// Weights on their way to the device: the host converts a piece of rows into pinned memory while
// the piece before it is copied.
#ifndef SLUICE_KERNELS_CUDA_WEIGHT_UPLOADER_H_
#define SLUICE_KERNELS_CUDA_WEIGHT_UPLOADER_H_

#include <array>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/stream.h"
#include "kernels/tensor.h"

namespace sluice::cuda {

class WeightUploader {
 public:
  // Blocks below one another, rounded to bf16: (rows, Stride(cols)), zeros past cols.
  absl::StatusOr<Memory> Stack(absl::Span<const MatrixView> blocks);
  // Rows of gate and up alternate in blocks of kGateUpBlock; a last block is padded with zeros.
  absl::StatusOr<Memory> GateUp(const MatrixView& gate, const MatrixView& up);
  // Uploads values as fp32, with zeros up to Stride(size).
  absl::StatusOr<Memory> Values(const MatrixView& values);

 private:
  // Fills `rows` rows of `row_bytes` each, in order, and copies them; done when it returns.
  absl::StatusOr<Memory> Upload(int64_t rows, int64_t row_bytes,
                                absl::FunctionRef<void(int64_t row, void* to)> fill);
  absl::Status Prepare();

  struct Piece {
    Memory memory;
    Event copied;
  };
  Stream stream_;
  std::array<Piece, 2> pieces_;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_WEIGHT_UPLOADER_H_
