#include "kernels/cuda/cuda_device.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/coverage.h"
#include "kernels/cuda/cuda_status.h"

#ifndef SLUICE_CUDA_ARCHITECTURES
#error "SLUICE_CUDA_ARCHITECTURES comes from CMake"
#endif

namespace sluice::cuda {

absl::StatusOr<GpuInfo> OpenGpu(int ordinal) {
  int count = 0;
  const cudaError_t counted = cudaGetDeviceCount(&count);
  if (counted == cudaErrorInsufficientDriver) {
    int driver = 0;
    (void)cudaDriverGetVersion(&driver);
    if (driver == 0) return absl::UnavailableError("cuda: no NVIDIA driver on this host");
    return absl::UnavailableError(absl::StrCat(
        "cuda: the NVIDIA driver is for CUDA ", driver / 1000, ".", driver % 1000 / 10,
        ", this build needs ", CUDART_VERSION / 1000, ".", CUDART_VERSION % 1000 / 10));
  }
  if (counted == cudaErrorNoDevice || (counted == cudaSuccess && count == 0))
    return absl::UnavailableError("cuda: no GPU on this host");
  if (absl::Status status = CudaStatus(counted, "counting the GPUs"); !status.ok())
    return absl::UnavailableError(status.message());
  if (ordinal >= count) {
    return absl::InvalidArgumentError(
        absl::StrCat("cuda: there is no GPU ", ordinal, ", this host's are 0 to ", count - 1));
  }
  cudaDeviceProp properties = {};
  absl::Status status =
      CudaStatus(cudaGetDeviceProperties(&properties, ordinal), "asking for a GPU's properties");
  status.Update(CudaStatus(cudaSetDevice(ordinal), absl::StrCat("GPU ", ordinal)));
  if (!status.ok()) return status;
  if (properties.major < 8 || !HasCode()) {
    return absl::UnavailableError(
        absl::StrCat("cuda: ", properties.name, " has compute capability ", properties.major, ".",
                     properties.minor, ", this build is for ", SLUICE_CUDA_ARCHITECTURES));
  }
  return GpuInfo{properties.name, properties.major, properties.minor};
}

}  // namespace sluice::cuda
