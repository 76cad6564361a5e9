#include "kernels/cpu/host_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace sluice {
namespace {

constexpr int64_t kAlignment = 64;
// Vector loops may read up to a line past the last element.
constexpr int64_t kSlackBytes = 128;
// More than any address space has; calloc is not even asked.
constexpr int64_t kMaxBytes = int64_t{1} << 46;
constexpr int64_t kHugePage = int64_t{2} << 20;

// Weights are streamed once a step: with 4 KiB pages the TLB would miss at every one.
void AdviseHugePages(void* base, int64_t bytes) {
  const uintptr_t begin =
      RoundUp(static_cast<int64_t>(reinterpret_cast<uintptr_t>(base)), kHugePage);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(base) + bytes) / kHugePage * kHugePage;
  // Advice only: without it everything still works.
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

}  // namespace

HostBuffer& HostBuffer::operator=(HostBuffer&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

HostBuffer::~HostBuffer() { std::free(base_); }

absl::StatusOr<HostBuffer> HostBuffer::Allocate(int64_t count, int64_t element_bytes,
                                                absl::string_view what) {
  const int64_t bytes = SaturatedProduct(count, element_bytes);
  HostBuffer buffer;
  if (bytes <= kMaxBytes) {
    buffer.base_ = std::calloc(static_cast<size_t>(bytes + kAlignment + kSlackBytes), 1);
  }
  if (buffer.base_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": no memory for ", count, " x ", element_bytes, " bytes on the host"));
  }
  const uintptr_t base = reinterpret_cast<uintptr_t>(buffer.base_);
  buffer.data_ = reinterpret_cast<void*>((base + kAlignment - 1) / kAlignment * kAlignment);
  buffer.bytes_ = bytes;
  AdviseHugePages(buffer.data_, bytes);
  return buffer;
}

}  // namespace sluice
