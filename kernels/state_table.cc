#include "kernels/state_table.h"

#include <limits>
#include <utility>

#include "kernels/saturated.h"

namespace sluice {

const StatePart* StateTable::Find(int64_t layer, StatePartKind kind) const {
  for (const StatePart& part : parts_) {
    if (part.layer == layer && part.kind == kind) return &part;
  }
  return nullptr;
}

StatePart& StateTable::Append(int64_t layer, StatePartKind kind, std::vector<int64_t> shape,
                              DType dtype) {
  StatePart part;
  part.layer = static_cast<int32_t>(layer);
  part.kind = kind;
  part.dtype = dtype;
  part.shape = std::move(shape);
  part.offset = bytes_;
  part.token_offset = token_bytes_;
  part.elements = 1;
  for (int64_t extent : part.shape) part.elements = SaturatedProduct(part.elements, extent);
  return parts_.emplace_back(std::move(part));
}

void StateTable::Add(int64_t layer, StatePartKind kind, std::vector<int64_t> shape, DType dtype) {
  const StatePart& part = Append(layer, kind, std::move(shape), dtype);
  bytes_ = SaturatedSum(bytes_, SaturatedProduct(part.elements, DTypeBytes(dtype)));
}

void StateTable::AddPerToken(int64_t layer, StatePartKind kind, std::vector<int64_t> shape,
                             DType dtype) {
  StatePart& part = Append(layer, kind, std::move(shape), dtype);
  part.per_token = true;
  token_bytes_ = SaturatedSum(token_bytes_, SaturatedProduct(part.elements, DTypeBytes(dtype)));
}

int64_t StateTable::BytesAt(int64_t tokens) const {
  return SaturatedSum(bytes_, SaturatedProduct(token_bytes_, tokens));
}

StateTable MakeStateTable(const ModelSpec& spec) {
  StateTable table;
  ForEachMixer(spec, [&](int64_t layer, const MixerSpec& m) {
    if (m.core == Core::kSoftmax) {
      const int64_t keys = m.k_heads * m.dk, values = m.v_heads * m.dv;
      if (m.window > 0) {
        table.Add(layer, StatePartKind::kKeys, {m.window, keys});
        table.Add(layer, StatePartKind::kValues, {m.window, values});
      } else {
        table.AddPerToken(layer, StatePartKind::kKeys, {keys});
        table.AddPerToken(layer, StatePartKind::kValues, {values});
      }
      return;
    }
    if (m.core == Core::kShortConv) {
      if (m.conv.taps > 1) {
        table.Add(layer, StatePartKind::kConvV, {m.conv.taps - 1, m.v.width});
      }
      return;
    }
    table.Add(layer, StatePartKind::kMatrix, {m.state_heads, m.dk, m.dv});
    if (m.conv.taps > 1) {
      table.Add(layer, StatePartKind::kConvQ, {m.conv.taps - 1, m.q.width});
      table.Add(layer, StatePartKind::kConvK, {m.conv.taps - 1, m.k.width});
      table.Add(layer, StatePartKind::kConvV, {m.conv.taps - 1, m.v.width});
    }
    if (m.normaliser) table.Add(layer, StatePartKind::kNormaliser, {m.state_heads, m.dk});
    if (m.gate == GateMap::kLightNet) {
      table.Add(layer, StatePartKind::kLogSum, {m.state_heads, m.dk});
    }
  });
  return table;
}

}  // namespace sluice
