#include "kernels/cuda/step_buffers.h"

#include <utility>

#include "kernels/cuda/cuda_status.h"

namespace sluice::cuda {
namespace {

absl::Status Assign(absl::StatusOr<Memory> memory, Memory* to) {
  if (memory.ok()) *to = *std::move(memory);
  return memory.status();
}

}  // namespace

absl::Status StepBuffers::Grow(int64_t bytes) {
  absl::Status status =
      Assign(Memory::Allocate(MemoryKind::kDevice, bytes, "a step's rows"), &device_);
  for (Memory& block : blocks_) {
    status.Update(
        Assign(Memory::Allocate(MemoryKind::kPinnedHost, bytes, "a step's rows"), &block));
  }
  return status;
}

absl::Status StepBuffers::Allocate(int64_t block_bytes, int32_t max_logits) {
  absl::Status status = Grow(block_bytes);
  for (Memory& results : results_) {
    status.Update(Assign(
        Memory::Allocate(MemoryKind::kPinnedHost, CheckedBytes(max_logits, sizeof(LogitResult), 1),
                         "a step's results"),
        &results));
  }
  return status;
}

absl::Status StepBuffers::Upload(const StepRows& rows, StepPacker* packer, cudaStream_t stream,
                                 StepPlan* plan, bool* grown) {
  const int64_t bytes = StepPacker::MaxBytes(rows, packer->paged());
  *grown = bytes > device_.bytes();
  if (*grown) {
    // Only long lists of biases, of bans or of pages come here.
    absl::Status status = CudaStatus(cudaStreamSynchronize(stream), "waiting for a step");
    status.Update(Grow(2 * bytes));
    if (!status.ok()) return status;
  }
  current_ = (current_ + 1) % kRing;
  char* block = blocks_[current_].as<char>();
  packer->Pack(rows, results_[current_].as<LogitResult>(), block, plan);
  return CudaStatus(
      cudaMemcpyAsync(device_.as<char>(), block, plan->bytes, cudaMemcpyHostToDevice, stream),
      "copying a step's rows");
}

}  // namespace sluice::cuda
