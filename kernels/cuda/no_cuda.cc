// In the place of the backend, where CUDA's compiler was missing.
#include "kernels/cuda/cuda_backend.h"

namespace sluice {

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaOptions&) {
  return absl::UnavailableError("cuda: this program was built without CUDA");
}

absl::Status CheckCudaSpec(const ModelSpec&) { return absl::OkStatus(); }

}  // namespace sluice
