// What states keep for each token that they have seen: rows in pages (kernels/page_map.h), each of
// which holds the rows of all such parts of all layers.
#ifndef SLUICE_KERNELS_CPU_TOKEN_PAGES_H_
#define SLUICE_KERNELS_CPU_TOKEN_PAGES_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/page_map.h"
#include "kernels/state_table.h"

namespace sluice {

// The places of the rows of one part of one slot.
class TokenRows {
 public:
  // The row of the token at `position`.
  float* Row(int64_t position) const {
    if (pages_ == nullptr) return base_ + position % window_ * stride_;
    return base_ + pages_[position / kPageTokens] * page_floats_ + position % kPageTokens * stride_;
  }

  // A ring of the last `window` tokens.
  static TokenRows Ring(float* base, int64_t stride, int64_t window);
  // Rows `stride` floats apart in pages `page_floats` apart, of which `pages` lists the slot's.
  static TokenRows Paged(float* base, int64_t stride, const int32_t* pages, int64_t page_floats);

 private:
  float* base_ = nullptr;
  int64_t stride_ = 0;
  int64_t window_ = 1;
  const int32_t* pages_ = nullptr;
  int64_t page_floats_ = 0;
};

class TokenPages {
 public:
  // Bytes of one page, or INT64_MAX where they cannot be counted; 0: the table has no such parts.
  static int64_t PageBytes(const StateTable& table);

  // Once. At most `max_tokens` a slot. RESOURCE_EXHAUSTED when memory is short.
  absl::Status Allocate(const StateTable& table, int32_t slots, int64_t max_tokens, int64_t pages);

  // The slot's state is about to have seen `tokens`: takes the pages that it has not yet. There
  // must be that many free ones.
  void Extend(int32_t slot, int64_t tokens);
  void Clear(int32_t slot);
  // `to`, another slot, gets what `from` has.
  void Copy(int32_t from, int32_t to);
  // Between the slot and the canonical form of a state (its first byte at `host`).
  void Read(int32_t slot, char* host) const;
  // The slot has seen `tokens` then.
  void Write(int32_t slot, const char* host, int64_t tokens);

  bool empty() const { return parts_.empty(); }
  int64_t tokens(int32_t slot) const { return empty() ? 0 : map_.tokens(slot); }
  int64_t most_tokens() const { return map_.most_tokens(); }
  int64_t total() const { return map_.total(); }
  int64_t free() const { return map_.free(); }
  // Pages that more than one slot has.
  int64_t shared() const { return map_.shared(); }

  // The rows of a part of the table, by its index; its first row and those behind stay where they
  // are while the slot is not cleared.
  TokenRows Rows(int32_t slot, size_t part) const;

 private:
  struct Part {
    int64_t cols = 0;
    int64_t stride = 0;     // floats
    int64_t offset = 0;     // floats from the beginning of a page
    int64_t canonical = 0;  // StatePart::offset and token_offset
    int64_t canonical_token = 0;
  };
  float* Page(int32_t page) const { return buffer_.floats() + page * page_floats_; }

  std::vector<Part> parts_;     // per_token ones
  std::vector<int32_t> index_;  // by part of the table: into parts_; -1: it is not per_token
  int64_t page_floats_ = 0;
  HostBuffer buffer_;
  PageMap map_;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_TOKEN_PAGES_H_
