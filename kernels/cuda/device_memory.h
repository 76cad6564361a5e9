// Memory that a backend owns on the device, or on the host where the device can reach it.
#ifndef SLUICE_KERNELS_CUDA_DEVICE_MEMORY_H_
#define SLUICE_KERNELS_CUDA_DEVICE_MEMORY_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice::cuda {

enum class MemoryKind : uint8_t { kDevice, kPinnedHost };

// Zeroed. Moves; frees when destroyed.
class Memory {
 public:
  Memory() = default;
  Memory(Memory&& other) noexcept { *this = static_cast<Memory&&>(other); }
  Memory& operator=(Memory&& other) noexcept;
  ~Memory() { Free(); }

  // RESOURCE_EXHAUSTED names `what` and the bytes needed and free. A size below zero counts as too
  // large.
  static absl::StatusOr<Memory> Allocate(MemoryKind kind, int64_t bytes, absl::string_view what);

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  void Free();

  MemoryKind kind_ = MemoryKind::kDevice;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// rows * cols * size, or -1 where that is past 2^62.
int64_t CheckedBytes(int64_t rows, int64_t cols, int64_t size);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_DEVICE_MEMORY_H_
