#include "kernels/cuda/device_memory.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_status.h"

namespace sluice::cuda {

Memory& Memory::operator=(Memory&& other) noexcept {
  if (this != &other) {
    Free();
    kind_ = other.kind_;
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void Memory::Free() {
  if (data_ == nullptr || DeviceLost()) return;
  if (kind_ == MemoryKind::kDevice) {
    (void)cudaFree(data_);
  } else {
    (void)cudaFreeHost(data_);
  }
  data_ = nullptr;
}

absl::StatusOr<Memory> Memory::Allocate(MemoryKind kind, int64_t bytes, absl::string_view what) {
  if (bytes < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": the size in bytes does not fit 62 bits"));
  }
  Memory memory;
  memory.kind_ = kind;
  if (bytes == 0) return memory;
  const bool device = kind == MemoryKind::kDevice;
  const cudaError_t error =
      device ? cudaMalloc(&memory.data_, bytes) : cudaMallocHost(&memory.data_, bytes);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();  // not sticky
    size_t free = 0, total = 0;
    (void)cudaMemGetInfo(&free, &total);
    return absl::ResourceExhaustedError(absl::StrCat(
        what, ": needs ", bytes, device ? " bytes of device memory, " : " bytes of pinned memory, ",
        free, " of the device's ", total, " are free"));
  }
  if (error != cudaSuccess) return CudaStatus(error, what);
  memory.bytes_ = bytes;
  if (device) {
    cudaError_t zeroed = cudaMemset(memory.data_, 0, bytes);
    // Other streams do not wait for it.
    if (zeroed == cudaSuccess) zeroed = cudaStreamSynchronize(nullptr);
    if (zeroed != cudaSuccess) return CudaStatus(zeroed, what);
  } else {
    std::memset(memory.data_, 0, bytes);
  }
  return memory;
}

int64_t CheckedBytes(int64_t rows, int64_t cols, int64_t size) {
  constexpr __int128 kLimit = __int128{1} << 62;
  if (rows < 0 || cols < 0 || size < 0) return -1;
  const __int128 elements = static_cast<__int128>(rows) * cols;
  if (elements > kLimit) return -1;
  const __int128 bytes = elements * size;
  return bytes > kLimit ? -1 : static_cast<int64_t>(bytes);
}

}  // namespace sluice::cuda
