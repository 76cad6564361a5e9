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
  map_.Allocate(slots, max_tokens, pages);
  return absl::OkStatus();
}

void TokenPages::Extend(int32_t slot, int64_t tokens) {
  if (!empty()) map_.Extend(slot, tokens);
}

void TokenPages::Clear(int32_t slot) {
  if (!empty()) map_.Clear(slot);
}

void TokenPages::Copy(int32_t from, int32_t to) {
  if (empty()) return;
  const PageMap::PageCopy copy = map_.Copy(from, to);
  if (copy.from >= 0) std::memcpy(Page(copy.to), Page(copy.from), page_floats_ * sizeof(float));
}

void TokenPages::Read(int32_t slot, char* host) const {
  if (empty()) return;
  const int64_t tokens = map_.tokens(slot);
  for (const Part& part : parts_) {
    char* to = host + part.canonical + part.canonical_token * tokens;
    const int64_t row_bytes = part.cols * static_cast<int64_t>(sizeof(float));
    for (int64_t t = 0; t < tokens; ++t) {
      const float* row = Page(map_.pages(slot)[t / kPageTokens]) + part.offset;
      std::memcpy(to + t * row_bytes, row + t % kPageTokens * part.stride, row_bytes);
    }
  }
}

void TokenPages::Write(int32_t slot, const char* host, int64_t tokens) {
  if (empty()) return;
  Clear(slot);
  Extend(slot, tokens);
  for (const Part& part : parts_) {
    const char* from = host + part.canonical + part.canonical_token * tokens;
    const int64_t row_bytes = part.cols * static_cast<int64_t>(sizeof(float));
    for (int64_t t = 0; t < tokens; ++t) {
      float* row = Page(map_.pages(slot)[t / kPageTokens]) + part.offset;
      std::memcpy(row + t % kPageTokens * part.stride, from + t * row_bytes, row_bytes);
    }
  }
}

TokenRows TokenPages::Rows(int32_t slot, size_t part) const {
  SLUICE_CHECK(index_[part] >= 0);
  const Part& own = parts_[index_[part]];
  return TokenRows::Paged(buffer_.floats() + own.offset, own.stride, map_.pages(slot).data(),
                          page_floats_);
}

}  // namespace sluice
