// The backend on an NVIDIA GPU: bf16 weights and activations, fp32 residual stream, states and
// logits. A build without CUDA has these functions too, and they say so.
#ifndef SLUICE_KERNELS_CUDA_CUDA_BACKEND_H_
#define SLUICE_KERNELS_CUDA_CUDA_BACKEND_H_

#include <chrono>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace sluice {

struct CudaOptions {
  int device = 0;
  // A row's bits never depend on how many rows there are. Off: from a few dozen rows on, products
  // go to the library with all rows of the step together, which is faster and changes bits with the
  // number of rows.
  bool batch_invariant = true;
  // Decode steps are captured once per number of rows (rounded up) and replayed: all of them when a
  // step without rows comes, which computes nothing, or each when it is first needed.
  bool graphs = true;
  // A device on which nothing is done for this long while it is waited for has hung: a fault.
  std::chrono::seconds patience{10};
};

// UNAVAILABLE, and why in one line, when this host or its GPU cannot run it; INVALID_ARGUMENT when
// there is no such GPU on a host that has some.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaOptions& options);

// Checks what CheckSpec checks, and the shared memory of a block. A build without CUDA refuses
// nothing.
absl::Status CheckCudaSpec(const ModelSpec& spec);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CUDA_CUDA_BACKEND_H_
