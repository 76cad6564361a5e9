// The device's pages of keys and values (state_table.h): where each layer's rows lie in them, and
// the way between a slot with its pages and the canonical form of its state. Rows are bf16, which
// is what the mixers make of keys and values; the canonical form has them in fp32.
#ifndef SLUICE_KERNELS_CUDA_PAGE_STORE_H_
#define SLUICE_KERNELS_CUDA_PAGE_STORE_H_

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/page_copies.h"
#include "kernels/page_map.h"
#include "kernels/state_table.h"

namespace sluice::cuda {

class PageStore {
 public:
  // A part of the table that grows: elements from the beginning of a page, and of a token.
  struct Place {
    int64_t offset = 0;
    int64_t row = 0;
  };

  // Bytes of one page; 0: the table has no parts that grow.
  static int64_t PageBytes(const StateTable& table);

  // Once. RESOURCE_EXHAUSTED when memory is short.
  absl::Status Allocate(const StateTable& table, int32_t slots, const AttentionRoom& room);

  PageMap& map() { return map_; }
  const PageMap& map() const { return map_; }
  // Null: the layer has no such part, or it does not grow.
  const Place* Find(int64_t layer, StatePartKind kind) const;
  __nv_bfloat16* pages() const { return memory_.as<__nv_bfloat16>(); }
  int64_t page_elements() const { return page_elements_; }

  absl::Status CopyPage(const PageMap::PageCopy& copy, cudaStream_t stream) const;

  // A state that is copied in pieces between a slot and `words`, device memory: bytes [at, at +
  // count) of the canonical form, whole words.
  struct Piece {
    int32_t slot = 0;
    char* slot_memory = nullptr;
    int64_t tokens = 0;  // that the state has seen
    int64_t at = 0;
    int64_t count = 0;
    char* words = nullptr;
  };
  absl::Status Gather(const Piece& piece, cudaStream_t stream) const;
  absl::Status Scatter(const Piece& piece, cudaStream_t stream) const;

 private:
  template <class OfSlot, class OfPages>
  absl::Status ForEachPart(const Piece& piece, OfSlot of_slot, OfPages of_pages) const;

  StateTable table_;
  std::vector<Place> places_;  // by part of the table
  int64_t page_elements_ = 0;
  Memory memory_;
  PageMap map_;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_PAGE_STORE_H_
