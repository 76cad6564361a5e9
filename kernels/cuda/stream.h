// Owners of CUDA's streams and events.
#ifndef SLUICE_KERNELS_CUDA_STREAM_H_
#define SLUICE_KERNELS_CUDA_STREAM_H_

#include <cuda_runtime_api.h>

#include <utility>

#include "absl/status/status.h"
#include "kernels/cuda/cuda_status.h"

namespace sluice::cuda {

template <class Handle, cudaError_t (*Destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_ != nullptr && !DeviceLost()) (void)Destroy(handle_);
  }
  Handle get() const { return handle_; }
  Handle* receive() { return &handle_; }

 private:
  Handle handle_ = nullptr;
};

using Stream = Owned<cudaStream_t, cudaStreamDestroy>;
using Event = Owned<cudaEvent_t, cudaEventDestroy>;

inline absl::Status MakeStream(Stream* stream) {
  return CudaStatus(cudaStreamCreateWithFlags(stream->receive(), cudaStreamNonBlocking),
                    "creating a stream");
}
inline absl::Status MakeEvent(Event* event) {
  return CudaStatus(cudaEventCreateWithFlags(event->receive(), cudaEventDisableTiming),
                    "creating an event");
}

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_STREAM_H_
