#include "kernels/page_map.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/state_table.h"

namespace sluice {

void PageMap::Allocate(int32_t slots, int64_t max_tokens, int64_t pages) {
  most_tokens_ = max_tokens;
  slots_.resize(slots);
  for (Slot& slot : slots_) slot.pages.reserve(PagesFor(max_tokens));
  users_.resize(pages);
  for (int64_t page = pages - 1; page >= 0; --page) free_.push_back(static_cast<int32_t>(page));
}

int32_t PageMap::Take() {
  SLUICE_CHECK(!free_.empty());
  const int32_t page = free_.back();
  free_.pop_back();
  users_[page] = 1;
  return page;
}

void PageMap::Drop(int32_t page) {
  if (--users_[page] == 1) --shared_;
  if (users_[page] == 0) free_.push_back(page);
}

void PageMap::Extend(int32_t slot, int64_t tokens) {
  SLUICE_CHECK(tokens <= most_tokens_);
  Slot& own = slots_[slot];
  while (static_cast<int64_t>(own.pages.size()) < PagesFor(tokens)) own.pages.push_back(Take());
  own.tokens = std::max(own.tokens, tokens);
}

void PageMap::Clear(int32_t slot) {
  for (const int32_t page : slots_[slot].pages) Drop(page);
  slots_[slot].pages.clear();
  slots_[slot].tokens = 0;
}

PageMap::PageCopy PageMap::Copy(int32_t from, int32_t to) {
  Clear(to);
  const Slot& source = slots_[from];
  Slot& copy = slots_[to];
  copy.tokens = source.tokens;
  for (int64_t i = 0; i < source.tokens / kPageTokens; ++i) {
    const int32_t page = source.pages[i];
    if (++users_[page] == 2) ++shared_;
    copy.pages.push_back(page);
  }
  if (source.tokens % kPageTokens == 0) return {};
  const int32_t last = source.pages[copy.pages.size()];
  copy.pages.push_back(Take());
  return {last, copy.pages.back()};
}

}  // namespace sluice
