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

void StateTable::Add(int64_t layer, StatePartKind kind, std::vector<int64_t> shape, DType dtype) {
  StatePart part;
  part.layer = static_cast<int32_t>(layer);
  part.kind = kind;
  part.dtype = dtype;
  part.shape = std::move(shape);
  part.offset = bytes_;
  part.elements = 1;
  for (int64_t extent : part.shape) part.elements = SaturatedProduct(part.elements, extent);
  const int64_t bytes = SaturatedProduct(part.elements, DTypeBytes(dtype));
  bytes_ = SaturatedSum(bytes_, bytes);
  parts_.push_back(std::move(part));
}

StateTable MakeStateTable(const ModelSpec& spec) {
  StateTable table;
  ForEachMixer(spec, [&](int64_t layer, const MixerSpec& m) {
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
