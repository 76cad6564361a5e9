// Says which pages hold what slots keep for each token that they have seen: pages of kPageTokens
// tokens, counted by the slots that have them. A page that is full never changes again and belongs
// to all the slots that have it; a copy of a slot takes a new page for its last, partial one alone.
// The places of pages and what is in them are a backend's own business.
#ifndef SLUICE_KERNELS_PAGE_MAP_H_
#define SLUICE_KERNELS_PAGE_MAP_H_

#include <cstdint>
#include <vector>

namespace sluice {

class PageMap {
 public:
  // Two pages of which the second is to get what is in the first; -1: there are none.
  struct PageCopy {
    int32_t from = -1;
    int32_t to = -1;
  };

  // Once. At most `max_tokens` a slot.
  void Allocate(int32_t slots, int64_t max_tokens, int64_t pages);

  // The slot's state is about to have seen `tokens`: takes the pages that it has not yet. There
  // must be that many free ones.
  void Extend(int32_t slot, int64_t tokens);
  void Clear(int32_t slot);
  // `to`, another slot, gets what `from` has.
  PageCopy Copy(int32_t from, int32_t to);

  // False: no state has pages.
  bool in_use() const { return !slots_.empty(); }
  int64_t tokens(int32_t slot) const { return slots_[slot].tokens; }
  // In the order of their tokens; stay where they are while the slot is not cleared.
  const std::vector<int32_t>& pages(int32_t slot) const { return slots_[slot].pages; }
  int64_t most_tokens() const { return most_tokens_; }
  int64_t total() const { return static_cast<int64_t>(users_.size()); }
  int64_t free() const { return static_cast<int64_t>(free_.size()); }
  // Pages that more than one slot has.
  int64_t shared() const { return shared_; }

 private:
  struct Slot {
    std::vector<int32_t> pages;  // room for all that it may have
    int64_t tokens = 0;
  };

  int32_t Take();
  void Drop(int32_t page);

  int64_t most_tokens_ = 0;
  std::vector<Slot> slots_;
  std::vector<int32_t> users_;  // by page: slots that have it
  std::vector<int32_t> free_;
  int64_t shared_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_PAGE_MAP_H_
