// The slots: each holds one sequence's state and the token last sampled for it. A slot's layout is
// state_table.h's, but for rows of all parts except convolution tails, which are padded with zeros
// to whole lines of 16 floats. What a state holds for each token is in pages beside the slots
// (token_pages.h). Slots that were never used take no resident memory.
#ifndef SLUICE_KERNELS_CPU_STATE_POOL_H_
#define SLUICE_KERNELS_CPU_STATE_POOL_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/token_pages.h"
#include "kernels/state_table.h"

namespace sluice {

class StatePool {
 public:
  // Bytes of one slot without pages, or INT64_MAX where they cannot be counted.
  static int64_t SlotBytes(const StateTable& table);

  // Once. RESOURCE_EXHAUSTED when memory is short.
  absl::Status Allocate(const StateTable& table, int32_t slots, const AttentionRoom& room = {});

  // A part that the model has, and that is not per_token: its rows one after another, padded as
  // above.
  float* Part(int32_t slot, int64_t layer, StatePartKind kind);
  // A part with a row for each token, or for each of the last tokens.
  TokenRows Rows(int32_t slot, int64_t layer, StatePartKind kind);

  // Before a step writes the slot through the pointers above: the state will have seen `tokens`.
  void MarkUsed(int32_t slot, int64_t tokens);
  const TokenPages& pages() const { return pages_; }

  int32_t LastSampled(int32_t slot) const;
  void SetLastSampled(int32_t slot, int32_t token);

  // Until the slot is zeroed, copied into or written.
  void DropPages(int32_t slot) { pages_.Clear(slot); }
  void Zero(int32_t slot);
  void Copy(int32_t from, int32_t to);  // the state alone
  // Canonical form of a state that has seen `tokens`: table.BytesAt(tokens) bytes.
  void Read(int32_t slot, void* host, int64_t tokens);
  void Write(int32_t slot, const void* host, int64_t tokens);

 private:
  static constexpr size_t kKinds = 16;  // more than any StatePartKind

  // A part's rows as they lie here.
  struct Place {
    int64_t offset = 0;  // floats from the beginning of a slot
    int64_t rows = 0;
    int64_t cols = 0;
    int64_t stride = 0;
    int64_t canonical = 0;        // StatePart::offset
    int64_t canonical_token = 0;  // and token_offset
    bool per_token = false;       // it has no rows here
  };
  static Place PlaceOf(const StatePart& part);

  float* Slot(int32_t slot);

  std::vector<Place> places_;   // of the table's parts
  std::vector<int32_t> index_;  // (layers, kKinds): into places_; -1: none
  int64_t slot_floats_ = 0;
  HostBuffer states_;
  TokenPages pages_;
  std::vector<int32_t> last_sampled_;
  std::vector<bool> used_;  // whether any byte of the slot may differ from zero
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_STATE_POOL_H_
