// The slots: each holds one sequence's state in fp32 and the token last sampled for it. A slot's
// layout is state_layout.h's, but for rows of S, which are padded with zeros to whole lines of 16
// floats. Slots that were never used take no resident memory.
#ifndef SLUICE_KERNELS_CPU_STATE_POOL_H_
#define SLUICE_KERNELS_CPU_STATE_POOL_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/ops.h"
#include "kernels/state_layout.h"

namespace sluice {

class StatePool {
 public:
  // Bytes of one slot, or INT64_MAX where they cannot be counted.
  static int64_t SlotBytes(const ModelShape& shape);

  // Once. RESOURCE_EXHAUSTED when memory is short.
  absl::Status Allocate(const ModelShape& shape, int32_t slots);

  // S of one kv head: (dk, dv_padded).
  float* Matrix(int32_t slot, int64_t layer, int64_t kv_head);
  // The tail of one short convolution: (conv_size - 1, channels). Only for models that have one.
  float* ConvTail(int32_t slot, int64_t layer, StatePartKind kind);
  int64_t dv_padded() const { return dv_padded_; }

  // Before a step writes the slot through the pointers above.
  void MarkUsed(int32_t slot);

  int32_t LastSampled(int32_t slot) const;
  void SetLastSampled(int32_t slot, int32_t token);

  void Zero(int32_t slot);
  void Copy(int32_t from, int32_t to);  // the state alone
  // Canonical form.
  void Read(int32_t slot, float* host);
  void Write(int32_t slot, const float* host);

 private:
  float* Slot(int32_t slot);

  ModelShape shape_;
  StateLayout canonical_;
  std::vector<int64_t> part_offset_;  // of canonical_.parts, in floats from the beginning of a slot
  int64_t parts_per_layer_ = 0;
  int64_t dv_padded_ = 0;
  int64_t slot_floats_ = 0;
  HostBuffer states_;
  std::vector<int32_t> last_sampled_;
  std::vector<bool> used_;  // whether any byte of the slot may differ from zero
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_STATE_POOL_H_
