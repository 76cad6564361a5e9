// States between slots and the host, beside the steps. A state that is read is first copied within
// the device, in order with the steps, so that its slot is free again at once; a state that is
// written goes straight to its slot, which the steps may not touch before. Host memory may be of
// any kind: it is copied from and to pinned memory a piece at a time, by a thread of the driver's.
#ifndef SLUICE_KERNELS_CUDA_STATE_COPIER_H_
#define SLUICE_KERNELS_CUDA_STATE_COPIER_H_

#include <array>
#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/stream.h"

namespace sluice::cuda {

class StateCopier {
 public:
  ~StateCopier() { Stop(); }

  // Copies of at most `most_bytes` each.
  absl::Status Allocate(int64_t most_bytes);
  static int64_t DeviceBytes(int64_t most_bytes) { return kStages * most_bytes; }

  // Enqueues a copy; it is done with what reads() or writes() then holds. `host` lives until then.
  absl::Status Read(const void* slot, void* host, int64_t bytes, cudaStream_t steps);
  absl::Status Write(void* slot, const void* host, int64_t bytes, cudaStream_t steps);
  cudaStream_t reads() const { return read_lanes_[0].stream.get(); }
  cudaStream_t writes() const { return write_lanes_[0].stream.get(); }

  // After a fault: no host memory is touched once this has returned.
  void Stop();

 private:
  static constexpr int kStages = 4;  // states read at once before the steps must wait
  struct Stage {
    Memory memory;
    Event full, empty;
  };
  // Pieces alternate between two lanes: one copies on the host while the other does on the bus.
  struct Lane {
    Stream stream;
    Memory pinned;
    Event end;
  };
  struct HostCopy {
    StateCopier* copier;
    void* to;
    const void* from;
    size_t bytes;
  };
  static void RunHostCopy(void* copy);
  absl::Status OnHost(const Lane& lane, void* to, const void* from, size_t bytes);
  absl::Status Begin(const std::array<Lane, 2>& lanes, cudaEvent_t after);
  absl::Status Join(const std::array<Lane, 2>& lanes);

  std::array<Lane, 2> read_lanes_, write_lanes_;
  std::array<Stage, kStages> stages_;
  Event written_before_;
  int64_t reads_ = 0;
  std::mutex mutex_;  // held while host memory is copied
  bool stopped_ = false;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_STATE_COPIER_H_
