#include "kernels/cuda/state_copier.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "kernels/cuda/cuda_status.h"

namespace sluice::cuda {
namespace {

constexpr int64_t kPieceBytes = int64_t{1} << 22;

absl::Status Ok(cudaError_t error) { return CudaStatus(error, "copying a state"); }

}  // namespace

absl::Status StateCopier::Allocate(int64_t most_bytes) {
  absl::Status status = MakeEvent(&written_before_);
  for (std::array<Lane, 2>* lanes : {&read_lanes_, &write_lanes_}) {
    for (Lane& lane : *lanes) {
      absl::StatusOr<Memory> pinned = Memory::Allocate(
          MemoryKind::kPinnedHost, std::min(kPieceBytes, most_bytes), "states on their way");
      if (!pinned.ok()) return pinned.status();
      lane.pinned = *std::move(pinned);
      status.Update(MakeStream(&lane.stream));
      status.Update(MakeEvent(&lane.end));
    }
  }
  for (Stage& stage : stages_) {
    absl::StatusOr<Memory> memory =
        Memory::Allocate(MemoryKind::kDevice, most_bytes, "states on their way");
    if (!memory.ok()) return memory.status();
    stage.memory = *std::move(memory);
    status.Update(MakeEvent(&stage.full));
    status.Update(MakeEvent(&stage.empty));
  }
  return status;
}

void StateCopier::RunHostCopy(void* argument) {
  const std::unique_ptr<HostCopy> copy(static_cast<HostCopy*>(argument));
  const std::lock_guard<std::mutex> lock(copy->copier->mutex_);
  if (!copy->copier->stopped_) std::memcpy(copy->to, copy->from, copy->bytes);
}

absl::Status StateCopier::OnHost(const Lane& lane, void* to, const void* from, size_t bytes) {
  auto copy = std::make_unique<HostCopy>(HostCopy{this, to, from, bytes});
  const absl::Status status = Ok(cudaLaunchHostFunc(lane.stream.get(), &RunHostCopy, copy.get()));
  if (status.ok()) (void)copy.release();  // RunHostCopy's now
  return status;
}

absl::Status StateCopier::Begin(const std::array<Lane, 2>& lanes, cudaEvent_t after) {
  absl::Status status;
  for (const Lane& lane : lanes) status.Update(Ok(cudaStreamWaitEvent(lane.stream.get(), after)));
  return status;
}

// Work that lane 0 gets from now on runs after both lanes.
absl::Status StateCopier::Join(const std::array<Lane, 2>& lanes) {
  absl::Status status = Ok(cudaEventRecord(lanes[1].end.get(), lanes[1].stream.get()));
  status.Update(Ok(cudaStreamWaitEvent(lanes[0].stream.get(), lanes[1].end.get())));
  return status;
}

absl::Status StateCopier::Read(const void* slot, void* host, int64_t bytes, cudaStream_t steps) {
  Stage& stage = stages_[reads_++ % kStages];
  absl::Status status = Ok(cudaStreamWaitEvent(steps, stage.empty.get()));
  status.Update(
      Ok(cudaMemcpyAsync(stage.memory.as<void>(), slot, bytes, cudaMemcpyDeviceToDevice, steps)));
  status.Update(Ok(cudaEventRecord(stage.full.get(), steps)));
  status.Update(Begin(read_lanes_, stage.full.get()));
  for (int64_t at = 0, i = 0; at < bytes && status.ok(); at += kPieceBytes, ++i) {
    const Lane& lane = read_lanes_[i % 2];
    const int64_t count = std::min(kPieceBytes, bytes - at);
    status.Update(Ok(cudaMemcpyAsync(lane.pinned.as<void>(), stage.memory.as<char>() + at, count,
                                     cudaMemcpyDeviceToHost, lane.stream.get())));
    status.Update(OnHost(lane, static_cast<char*>(host) + at, lane.pinned.as<void>(), count));
  }
  status.Update(Join(read_lanes_));
  status.Update(Ok(cudaEventRecord(stage.empty.get(), reads())));
  return status;
}

absl::Status StateCopier::Write(void* slot, const void* host, int64_t bytes, cudaStream_t steps) {
  absl::Status status = Ok(cudaEventRecord(written_before_.get(), steps));
  status.Update(Begin(write_lanes_, written_before_.get()));
  for (int64_t at = 0, i = 0; at < bytes && status.ok(); at += kPieceBytes, ++i) {
    const Lane& lane = write_lanes_[i % 2];
    const int64_t count = std::min(kPieceBytes, bytes - at);
    status.Update(OnHost(lane, lane.pinned.as<void>(), static_cast<const char*>(host) + at, count));
    status.Update(Ok(cudaMemcpyAsync(static_cast<char*>(slot) + at, lane.pinned.as<void>(), count,
                                     cudaMemcpyHostToDevice, lane.stream.get())));
  }
  status.Update(Join(write_lanes_));
  return status;
}

void StateCopier::Stop() {
  const std::lock_guard<std::mutex> lock(mutex_);
  stopped_ = true;
}

}  // namespace sluice::cuda
