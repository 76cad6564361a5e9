#include "kernels/cpu/token_pages.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"

namespace sluice {

TokenRows TokenRows::Ring(float* base, int64_t stride, int64_t window) {
  TokenRows rows;
  rows.base_ = base;
  rows.stride_ = stride;
  rows.window_ = window;
  return rows;
}

TokenRows TokenRows::Paged(float* base, int64_t stride, const int32_t* pages, int64_t page_floats) {
  TokenRows rows;
  rows.base_ = base;
  rows.stride_ = stride;
  rows.pages_ = pages;
  rows.page_floats_ = page_floats;
  return rows;
}

int64_t TokenPages::PageBytes(const StateTable& table) {
  int64_t floats = 0;
  for (const StatePart& part : table.parts()) {
    if (!part.per_token) continue;
    floats = SaturatedSum(floats, SaturatedProduct(kPageTokens, PaddedCols(part.elements)));
  }
  return SaturatedProduct(floats, sizeof(float));
}

absl::Status TokenPages::Allocate(const StateTable& table, int32_t slots, int64_t max_tokens,
                                  int64_t pages) {
  for (const StatePart& part : table.parts()) {
    index_.push_back(part.per_token ? static_cast<int32_t>(parts_.size()) : -1);
    if (!part.per_token) continue;
    SLUICE_CHECK(part.dtype == DType::kF32);
    Part& own = parts_.emplace_back();
    own.cols = part.elements;
    own.stride = PaddedCols(part.elements);
    own.offset = page_floats_;
    own.canonical = part.offset;
    own.canonical_token = part.token_offset;
    page_floats_ += kPageTokens * own.stride;
  }
  if (parts_.empty()) return absl::OkStatus();
  absl::StatusOr<HostBuffer> buffer =
      HostBuffer::Allocate(pages, PageBytes(table), "pages of keys and values");
  if (!buffer.ok()) return buffer.status();
  buffer_ = std::move(*buffer);
  most_tokens_ = max_tokens;
  slots_.resize(slots);
  for (Slot& slot : slots_) slot.pages.reserve(PagesFor(max_tokens));
  users_.resize(pages);
  for (int64_t page = pages - 1; page >= 0; --page) free_.push_back(static_cast<int32_t>(page));
  return absl::OkStatus();
}

int32_t TokenPages::Take() {
  SLUICE_CHECK(!free_.empty());
  const int32_t page = free_.back();
  free_.pop_back();
  users_[page] = 1;
  return page;
}

void TokenPages::Drop(int32_t page) {
  if (--users_[page] == 1) --shared_;
  if (users_[page] == 0) free_.push_back(page);
}

void TokenPages::Extend(int32_t slot, int64_t tokens) {
  if (empty()) return;
  SLUICE_CHECK(tokens <= most_tokens_);
  Slot& own = slots_[slot];
  while (static_cast<int64_t>(own.pages.size()) < PagesFor(tokens)) own.pages.push_back(Take());
  own.tokens = std::max(own.tokens, tokens);
}

void TokenPages::Clear(int32_t slot) {
  if (empty()) return;
  for (int32_t page : slots_[slot].pages) Drop(page);
  slots_[slot].pages.clear();
  slots_[slot].tokens = 0;
}

void TokenPages::Copy(int32_t from, int32_t to) {
  if (empty()) return;
  Clear(to);
  const Slot& source = slots_[from];
  Slot& copy = slots_[to];
  copy.tokens = source.tokens;
  for (int64_t i = 0; i < source.tokens / kPageTokens; ++i) {
    const int32_t page = source.pages[i];
    if (++users_[page] == 2) ++shared_;
    copy.pages.push_back(page);
  }
  if (source.tokens % kPageTokens == 0) return;
  copy.pages.push_back(Take());
  std::memcpy(Page(copy.pages.back()), Page(source.pages[copy.pages.size() - 1]),
              page_floats_ * sizeof(float));
}

void TokenPages::Read(int32_t slot, char* host) const {
  if (empty()) return;
  const Slot& own = slots_[slot];
  for (const Part& part : parts_) {
    char* to = host + part.canonical + part.canonical_token * own.tokens;
    const int64_t row_bytes = part.cols * static_cast<int64_t>(sizeof(float));
    for (int64_t t = 0; t < own.tokens; ++t) {
      const float* row = Page(own.pages[t / kPageTokens]) + part.offset;
      std::memcpy(to + t * row_bytes, row + t % kPageTokens * part.stride, row_bytes);
    }
  }
}

void TokenPages::Write(int32_t slot, const char* host, int64_t tokens) {
  if (empty()) return;
  Clear(slot);
  Extend(slot, tokens);
  const Slot& own = slots_[slot];
  for (const Part& part : parts_) {
    const char* from = host + part.canonical + part.canonical_token * tokens;
    const int64_t row_bytes = part.cols * static_cast<int64_t>(sizeof(float));
    for (int64_t t = 0; t < tokens; ++t) {
      float* row = Page(own.pages[t / kPageTokens]) + part.offset;
      std::memcpy(row + t % kPageTokens * part.stride, from + t * row_bytes, row_bytes);
    }
  }
}

TokenRows TokenPages::Rows(int32_t slot, size_t part) const {
  SLUICE_CHECK(index_[part] >= 0);
  const Part& own = parts_[index_[part]];
  return TokenRows::Paged(buffer_.floats() + own.offset, own.stride, slots_[slot].pages.data(),
                          page_floats_);
}

}  // namespace sluice
