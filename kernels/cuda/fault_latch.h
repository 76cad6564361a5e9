// The first error of a device, kept: whoever has seen one touches the device no more.
#ifndef SLUICE_KERNELS_CUDA_FAULT_LATCH_H_
#define SLUICE_KERNELS_CUDA_FAULT_LATCH_H_

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/cuda_status.h"

namespace sluice::cuda {

class FaultLatch {
 public:
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  // Keeps the first error; true while there is none.
  bool Check(const absl::Status& status) {
    if (status_.ok() && !status.ok()) {
      status_ = status;
      SetDeviceLost();
    }
    return status_.ok();
  }
  bool Check(cudaError_t error, absl::string_view what) {
    return error == cudaSuccess ? status_.ok() : Check(CudaStatus(error, what));
  }

 private:
  absl::Status status_;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_FAULT_LATCH_H_
