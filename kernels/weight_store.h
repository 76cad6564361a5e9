// Takes a model's weights: a backend does, or code that only wants to know how large they are.
#ifndef SLUICE_KERNELS_WEIGHT_STORE_H_
#define SLUICE_KERNELS_WEIGHT_STORE_H_

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/tensor.h"

namespace sluice {

// Each call copies what it is given. RESOURCE_EXHAUSTED when memory is short.
class WeightStore {
 public:
  virtual ~WeightStore() = default;

  // One matrix out of several, stacked along rows; all of one dtype and width.
  virtual absl::StatusOr<Linear> LoadLinear(absl::Span<const MatrixView> blocks) = 0;
  // The SwiGLU's first matrix out of gate and up, each (intermediate, hidden).
  virtual absl::StatusOr<Linear> LoadGateUp(const MatrixView& gate, const MatrixView& up) = 0;
  // A vector or a small table, converted to fp32.
  virtual absl::StatusOr<Vector> LoadVector(const MatrixView& values) = 0;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_WEIGHT_STORE_H_
