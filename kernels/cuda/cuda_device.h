// The GPUs of this host, and whether this build runs on one.
#ifndef SLUICE_KERNELS_CUDA_CUDA_DEVICE_H_
#define SLUICE_KERNELS_CUDA_CUDA_DEVICE_H_

#include <string>

#include "absl/status/statusor.h"

namespace sluice::cuda {

struct GpuInfo {
  std::string name;          // "NVIDIA H200"
  int major = 0, minor = 0;  // compute capability
};

// Makes GPU `ordinal` the thread's. UNAVAILABLE, in one line, without a driver, without such a GPU,
// or where the build holds no code for it; INVALID_ARGUMENT names the GPUs there are.
absl::StatusOr<GpuInfo> OpenGpu(int ordinal);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_CUDA_DEVICE_H_
