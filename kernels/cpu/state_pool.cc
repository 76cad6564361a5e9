#include "kernels/cpu/state_pool.h"

#include <cstring>
#include <limits>

#include "kernels/check.h"

namespace sluice {
namespace {

// Slots begin on pages of their own, so that an unused one touches none.
constexpr int64_t kPageBytes = 4096;

}  // namespace

int64_t StatePool::SlotBytes(const ModelShape& shape) {
  int64_t layer = SaturatedProduct(shape.kv_heads * shape.dk, PaddedCols(shape.dv));
  if (shape.conv_size > 1) {
    layer += SaturatedProduct(shape.conv_size - 1, shape.q_dim() + shape.k_dim() + shape.v_dim());
    if (layer < 0) return std::numeric_limits<int64_t>::max();
  }
  const int64_t bytes = SaturatedProduct(SaturatedProduct(layer, shape.layers), sizeof(float));
  if (bytes > std::numeric_limits<int64_t>::max() - kPageBytes) return bytes;
  return RoundUp(bytes, kPageBytes);
}

absl::Status StatePool::Allocate(const ModelShape& shape, int32_t slots) {
  absl::StatusOr<HostBuffer> states = HostBuffer::Allocate(slots, SlotBytes(shape), "states");
  if (!states.ok()) return states.status();
  states_ = std::move(*states);
  shape_ = shape;
  canonical_ = MakeStateLayout(shape);
  dv_padded_ = PaddedCols(shape.dv);
  slot_floats_ = SlotBytes(shape) / static_cast<int64_t>(sizeof(float));
  parts_per_layer_ = static_cast<int64_t>(canonical_.parts.size()) / shape.layers;
  int64_t offset = 0;
  for (const StatePart& part : canonical_.parts) {
    part_offset_.push_back(offset);
    offset += part.kind == StatePartKind::kMatrix ? shape.kv_heads * shape.dk * dv_padded_
                                                  : part.elements;
  }
  SLUICE_CHECK(offset <= slot_floats_);
  last_sampled_.assign(slots, 0);
  used_.assign(slots, false);
  return absl::OkStatus();
}

float* StatePool::Slot(int32_t slot) {
  SLUICE_CHECK(slot >= 0 && slot < static_cast<int32_t>(used_.size()));
  return states_.floats() + slot * slot_floats_;
}

float* StatePool::Matrix(int32_t slot, int64_t layer, int64_t kv_head) {
  return Slot(slot) + part_offset_[layer * parts_per_layer_] + kv_head * shape_.dk * dv_padded_;
}

float* StatePool::ConvTail(int32_t slot, int64_t layer, StatePartKind kind) {
  const int64_t part = layer * parts_per_layer_ + static_cast<int64_t>(kind) -
                       static_cast<int64_t>(StatePartKind::kMatrix);
  SLUICE_CHECK(canonical_.parts[part].kind == kind);
  return Slot(slot) + part_offset_[part];
}

int32_t StatePool::LastSampled(int32_t slot) const { return last_sampled_[slot]; }

void StatePool::SetLastSampled(int32_t slot, int32_t token) { last_sampled_[slot] = token; }

void StatePool::MarkUsed(int32_t slot) { used_[slot] = true; }

void StatePool::Zero(int32_t slot) {
  float* state = Slot(slot);
  if (used_[slot]) std::memset(state, 0, slot_floats_ * sizeof(float));
  used_[slot] = false;
}

void StatePool::Copy(int32_t from, int32_t to) {
  if (from == to) return;
  if (!used_[from]) return Zero(to);
  std::memcpy(Slot(to), Slot(from), slot_floats_ * sizeof(float));
  used_[to] = true;
}

void StatePool::Read(int32_t slot, float* host) {
  const float* state = Slot(slot);
  for (size_t i = 0; i < canonical_.parts.size(); ++i) {
    const StatePart& part = canonical_.parts[i];
    const bool matrix = part.kind == StatePartKind::kMatrix;
    const int64_t cols = matrix ? shape_.dv : part.elements;
    const int64_t stride = matrix ? dv_padded_ : part.elements;
    for (int64_t row = 0; row * cols < part.elements; ++row) {
      std::memcpy(host + part.offset + row * cols, state + part_offset_[i] + row * stride,
                  cols * sizeof(float));
    }
  }
}

void StatePool::Write(int32_t slot, const float* host) {
  float* state = Slot(slot);
  used_[slot] = true;
  for (size_t i = 0; i < canonical_.parts.size(); ++i) {
    const StatePart& part = canonical_.parts[i];
    const bool matrix = part.kind == StatePartKind::kMatrix;
    const int64_t cols = matrix ? shape_.dv : part.elements;
    const int64_t stride = matrix ? dv_padded_ : part.elements;
    for (int64_t row = 0; row * cols < part.elements; ++row) {
      std::memcpy(state + part_offset_[i] + row * stride, host + part.offset + row * cols,
                  cols * sizeof(float));
    }
  }
}

}  // namespace sluice
