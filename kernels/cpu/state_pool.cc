#include "kernels/cpu/state_pool.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/check.h"

namespace sluice {
namespace {

// Slots begin on pages of their own, so that an unused one touches none.
constexpr int64_t kPageBytes = 4096;

bool IsConvTail(StatePartKind kind) {
  return kind == StatePartKind::kConvQ || kind == StatePartKind::kConvK ||
         kind == StatePartKind::kConvV;
}

}  // namespace

StatePool::Place StatePool::PlaceOf(const StatePart& part) {
  Place place;
  place.canonical = part.offset;
  place.canonical_token = part.token_offset;
  place.per_token = part.per_token;
  if (part.per_token) return place;
  place.cols = part.shape.back();
  place.rows = 1;
  for (size_t i = 0; i + 1 < part.shape.size(); ++i) {
    place.rows = SaturatedProduct(place.rows, part.shape[i]);
  }
  place.stride = IsConvTail(part.kind) ? place.cols : PaddedCols(place.cols);
  return place;
}

int64_t StatePool::SlotBytes(const StateTable& table) {
  int64_t floats = 0;
  for (const StatePart& part : table.parts()) {
    const Place place = PlaceOf(part);
    floats = SaturatedSum(floats, SaturatedProduct(place.rows, place.stride));
  }
  const int64_t bytes = SaturatedProduct(floats, sizeof(float));
  if (bytes > std::numeric_limits<int64_t>::max() - kPageBytes) return bytes;
  return RoundUp(std::max<int64_t>(bytes, 1), kPageBytes);
}

absl::Status StatePool::Allocate(const StateTable& table, int32_t slots,
                                 const AttentionRoom& room) {
  absl::StatusOr<HostBuffer> states = HostBuffer::Allocate(slots, SlotBytes(table), "states");
  if (!states.ok()) return states.status();
  states_ = std::move(*states);
  slot_floats_ = SlotBytes(table) / static_cast<int64_t>(sizeof(float));
  int64_t offset = 0;
  for (const StatePart& part : table.parts()) {
    SLUICE_CHECK(part.dtype == DType::kF32 && static_cast<size_t>(part.kind) < kKinds);
    Place place = PlaceOf(part);
    place.offset = offset;
    offset += place.rows * place.stride;
    index_.resize(std::max<size_t>(index_.size(), (part.layer + 1) * kKinds), -1);
    index_[part.layer * kKinds + static_cast<size_t>(part.kind)] =
        static_cast<int32_t>(places_.size());
    places_.push_back(place);
  }
  SLUICE_CHECK(offset <= slot_floats_);
  last_sampled_.assign(slots, 0);
  used_.assign(slots, false);
  return pages_.Allocate(table, slots, room.max_tokens, room.pages);
}

float* StatePool::Slot(int32_t slot) {
  SLUICE_CHECK(slot >= 0 && slot < static_cast<int32_t>(used_.size()));
  return states_.floats() + slot * slot_floats_;
}

float* StatePool::Part(int32_t slot, int64_t layer, StatePartKind kind) {
  const int32_t place = index_[layer * kKinds + static_cast<size_t>(kind)];
  SLUICE_CHECK(place >= 0 && !places_[place].per_token);
  return Slot(slot) + places_[place].offset;
}

TokenRows StatePool::Rows(int32_t slot, int64_t layer, StatePartKind kind) {
  const int32_t index = index_[layer * kKinds + static_cast<size_t>(kind)];
  SLUICE_CHECK(index >= 0);
  const Place& place = places_[index];
  if (place.per_token) return pages_.Rows(slot, static_cast<size_t>(index));
  return TokenRows::Ring(Slot(slot) + place.offset, place.stride, place.rows);
}

int32_t StatePool::LastSampled(int32_t slot) const { return last_sampled_[slot]; }

void StatePool::SetLastSampled(int32_t slot, int32_t token) { last_sampled_[slot] = token; }

void StatePool::MarkUsed(int32_t slot, int64_t tokens) {
  used_[slot] = true;
  pages_.Extend(slot, tokens);
}

void StatePool::Zero(int32_t slot) {
  float* state = Slot(slot);
  if (used_[slot]) std::memset(state, 0, slot_floats_ * sizeof(float));
  used_[slot] = false;
  pages_.Clear(slot);
}

void StatePool::Copy(int32_t from, int32_t to) {
  if (from == to) return;
  if (!used_[from]) return Zero(to);
  std::memcpy(Slot(to), Slot(from), slot_floats_ * sizeof(float));
  used_[to] = true;
  pages_.Copy(from, to);
}

void StatePool::Read(int32_t slot, void* host, int64_t tokens) {
  SLUICE_CHECK(pages_.empty() || pages_.tokens(slot) == tokens);
  const float* state = Slot(slot);
  for (const Place& place : places_) {
    char* to = static_cast<char*>(host) + place.canonical + place.canonical_token * tokens;
    const int64_t row_bytes = place.cols * static_cast<int64_t>(sizeof(float));
    for (int64_t row = 0; row < place.rows; ++row) {
      std::memcpy(to + row * row_bytes, state + place.offset + row * place.stride, row_bytes);
    }
  }
  pages_.Read(slot, static_cast<char*>(host));
}

void StatePool::Write(int32_t slot, const void* host, int64_t tokens) {
  float* state = Slot(slot);
  used_[slot] = true;
  for (const Place& place : places_) {
    const char* from =
        static_cast<const char*>(host) + place.canonical + place.canonical_token * tokens;
    const int64_t row_bytes = place.cols * static_cast<int64_t>(sizeof(float));
    for (int64_t row = 0; row < place.rows; ++row) {
      std::memcpy(state + place.offset + row * place.stride, from + row * row_bytes, row_bytes);
    }
  }
  pages_.Write(slot, static_cast<const char*>(host), tokens);
}

}  // namespace sluice
