// Describes steps to the device and takes its answers: a ring of blocks in pinned memory, one block
// on the device. The host fills one while the device still works on another.
#ifndef SLUICE_KERNELS_CUDA_STEP_BUFFERS_H_
#define SLUICE_KERNELS_CUDA_STEP_BUFFERS_H_

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/step_packer.h"

namespace sluice::cuda {

class StepBuffers {
 public:
  static constexpr int kRing = 3;

  absl::Status Allocate(int64_t block_bytes, int32_t max_logits);

  // Packs the step into the next block of the ring and enqueues its copy to the device. `grown`:
  // meta() has moved. The caller keeps at most kRing steps unfinished.
  absl::Status Upload(const StepRows& rows, StepPacker* packer, cudaStream_t stream, StepPlan* plan,
                      bool* grown);

  const StepHeader* meta() const { return device_.as<const StepHeader>(); }
  // The results of the step uploaded last.
  const LogitResult* results() const { return results_[current_].as<const LogitResult>(); }

 private:
  absl::Status Grow(int64_t bytes);

  Memory device_;
  std::array<Memory, kRing> blocks_, results_;
  int current_ = 0;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_STEP_BUFFERS_H_
