#include "kernels/state_layout.h"

#include <utility>

namespace sluice {
namespace {

void AddPart(int64_t layer, StatePartKind kind, std::vector<int64_t> shape, StateLayout* layout) {
  int64_t elements = 1;
  for (int64_t extent : shape) elements *= extent;
  layout->parts.push_back(
      {static_cast<int32_t>(layer), kind, std::move(shape), layout->elements, elements});
  layout->elements += elements;
}

}  // namespace

StateLayout MakeStateLayout(const ModelShape& shape) {
  StateLayout layout;
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    AddPart(layer, StatePartKind::kMatrix, {shape.kv_heads, shape.dk, shape.dv}, &layout);
    if (shape.conv_size > 1) {
      AddPart(layer, StatePartKind::kConvQ, {shape.conv_size - 1, shape.q_dim()}, &layout);
      AddPart(layer, StatePartKind::kConvK, {shape.conv_size - 1, shape.k_dim()}, &layout);
      AddPart(layer, StatePartKind::kConvV, {shape.conv_size - 1, shape.v_dim()}, &layout);
    }
  }
  return layout;
}

}  // namespace sluice
