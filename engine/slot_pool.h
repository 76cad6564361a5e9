// Free indices of a fixed set: state slots, count tables.
#ifndef SLUICE_ENGINE_SLOT_POOL_H_
#define SLUICE_ENGINE_SLOT_POOL_H_

#include <cstdint>
#include <vector>

#include "kernels/check.h"

namespace sluice {

class SlotPool {
 public:
  explicit SlotPool(int32_t size) : size_(size) {
    for (int32_t i = size - 1; i >= 0; --i) free_.push_back(i);
  }

  int32_t size() const { return size_; }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  int32_t used() const { return size_ - free(); }

  // There must be a free one.
  int32_t Take() {
    SLUICE_CHECK(!free_.empty());
    const int32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  void Give(int32_t slot) {
    SLUICE_CHECK(slot >= 0 && slot < size_ && free() < size_);
    free_.push_back(slot);
  }

 private:
  int32_t size_;
  std::vector<int32_t> free_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SLOT_POOL_H_
