#include "kernels/cuda/cuda_status.h"

#include <atomic>
#include <string>

#include "absl/strings/str_cat.h"

namespace sluice::cuda {
namespace {

std::atomic<bool> device_lost = false;

}  // namespace

bool DeviceLost() { return device_lost; }
void SetDeviceLost() { device_lost = true; }

absl::Status CudaStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat("cuda: ", what, ": ", cudaGetErrorString(error));
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(message);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
      return absl::UnavailableError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace sluice::cuda
