// Zeroed memory that is aligned to a cache line. Large buffers take resident memory only where they
// are touched.
#ifndef SLUICE_KERNELS_CPU_HOST_BUFFER_H_
#define SLUICE_KERNELS_CPU_HOST_BUFFER_H_

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/saturated.h"

namespace sluice {

// Activations and vectors are padded with zeros to whole lines of 16 floats, so that loops have no
// tails.
inline constexpr int64_t kLineFloats = 16;
inline constexpr int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
// Floats between two rows of `cols` columns.
inline constexpr int64_t PaddedCols(int64_t cols) { return RoundUp(cols, kLineFloats); }

class HostBuffer {
 public:
  HostBuffer() = default;
  HostBuffer(HostBuffer&& other) noexcept { *this = std::move(other); }
  HostBuffer& operator=(HostBuffer&& other) noexcept;
  ~HostBuffer();

  // `count` elements of `element_bytes`. RESOURCE_EXHAUSTED, naming `what` and the bytes, when
  // there is no room.
  static absl::StatusOr<HostBuffer> Allocate(int64_t count, int64_t element_bytes,
                                             absl::string_view what);

  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }
  int64_t bytes() const { return bytes_; }

 private:
  void* base_ = nullptr;  // what free() wants
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_HOST_BUFFER_H_
