// CUDA's errors as statuses.
#ifndef SLUICE_KERNELS_CUDA_CUDA_STATUS_H_
#define SLUICE_KERNELS_CUDA_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sluice::cuda {

// OK, or the error and what was being done: RESOURCE_EXHAUSTED for memory, UNAVAILABLE without a
// usable device, INTERNAL for the rest.
absl::Status CudaStatus(cudaError_t error, absl::string_view what);

// True once a device of this process has failed. Nothing of it is freed from then on: a device that
// hangs would hang the thread that frees, and the process is about to end.
bool DeviceLost();
void SetDeviceLost();

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_CUDA_STATUS_H_
