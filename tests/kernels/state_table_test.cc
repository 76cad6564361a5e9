// Tests the parts of a model's state, and where each part lies.
#include "kernels/state_table.h"

#include <limits>
#include <vector>

#include "engine/checkpoint/families/gla.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

GlaShape Shape() {
  GlaShape shape;
  shape.layers = 2;
  shape.hidden = 8;
  shape.heads = 4;
  shape.kv_heads = 2;
  shape.dk = 3;
  shape.dv = 5;
  shape.intermediate = 8;
  return shape;
}

TEST(StateTable, PartsFollowEachOther) {
  GlaShape shape = Shape();
  shape.conv_size = 3;
  const StateTable table = MakeStateTable(shape.Spec());
  ASSERT_EQ(table.parts().size(), 8u);
  int64_t offset = 0;
  for (const StatePart& part : table.parts()) {
    EXPECT_EQ(part.offset, offset);
    offset += part.bytes();
  }
  EXPECT_EQ(table.bytes(), offset);
  EXPECT_EQ(table.bytes(), 2 * 4 * (2 * 3 * 5 + 2 * (12 + 6 + 10)));
  const StatePart* conv = table.Find(1, StatePartKind::kConvV);
  ASSERT_NE(conv, nullptr);
  EXPECT_EQ(conv->shape, (std::vector<int64_t>{2, 10}));
  EXPECT_EQ(conv->offset + conv->bytes(), table.bytes());
}

TEST(StateTable, PartsThatALayerHasNot) {
  const StateTable table = MakeStateTable(Shape().Spec());
  EXPECT_EQ(table.Find(0, StatePartKind::kConvQ), nullptr);
  EXPECT_EQ(table.Find(2, StatePartKind::kMatrix), nullptr);
  EXPECT_EQ(table.bytes(), 2 * 4 * 2 * 3 * 5);
}

TEST(StateTable, LayersMayDiffer) {
  ModelSpec spec = Shape().Spec();
  auto& mixer = std::get<MixerSpec>(spec.layers[1].branches[0].units[0]);
  mixer.dk = 7;
  mixer.normaliser = true;
  const StateTable table = MakeStateTable(spec);
  EXPECT_EQ(table.Find(0, StatePartKind::kNormaliser), nullptr);
  EXPECT_EQ(table.Find(1, StatePartKind::kMatrix)->offset, 4 * 2 * 3 * 5);
  EXPECT_EQ(table.Find(1, StatePartKind::kNormaliser)->shape, (std::vector<int64_t>{2, 7}));
  EXPECT_EQ(table.bytes(), 4 * (2 * 3 * 5 + 2 * 7 * 5 + 2 * 7));
}

TEST(StateTable, HalfTheBytesIn16Bits) {
  StateTable table;
  table.Add(0, StatePartKind::kMatrix, {2, 3, 5}, DType::kBF16);
  table.Add(0, StatePartKind::kConvQ, {3, 4});
  EXPECT_EQ(table.parts()[1].offset, 60);
  EXPECT_EQ(table.bytes(), 60 + 48);
}

TEST(StateTable, SoftmaxLayersKeepAWindowOrGrow) {
  ModelSpec spec = Shape().Spec();
  auto& grows = std::get<MixerSpec>(spec.layers[0].branches[0].units[0]);
  grows.core = Core::kSoftmax;
  grows.k_heads = grows.v_heads = 2;
  auto& ring = std::get<MixerSpec>(spec.layers[1].branches[0].units[0]);
  ring = grows;
  ring.window = 10;
  const StateTable table = MakeStateTable(spec);
  ASSERT_EQ(table.parts().size(), 4u);
  EXPECT_EQ(table.bytes(), 10 * 4 * 2 * (3 + 5));
  EXPECT_EQ(table.token_bytes(), 4 * 2 * (3 + 5));
  EXPECT_EQ(table.BytesAt(0), table.bytes());
  EXPECT_EQ(table.BytesAt(7), table.bytes() + 7 * table.token_bytes());
  // Parts follow each other, however many tokens there are.
  for (const int64_t tokens : {0, 1, 7}) {
    int64_t offset = 0;
    for (const StatePart& part : table.parts()) {
      EXPECT_EQ(part.OffsetAt(tokens), offset);
      offset += part.BytesAt(tokens);
    }
    EXPECT_EQ(offset, table.BytesAt(tokens));
  }
  EXPECT_TRUE(table.Find(0, StatePartKind::kKeys)->per_token);
  EXPECT_EQ(table.Find(1, StatePartKind::kValues)->shape, (std::vector<int64_t>{10, 10}));
}

TEST(StateTable, SizesThatDoNotFitSaturate) {
  StateTable table;
  table.Add(0, StatePartKind::kMatrix, {int64_t{1} << 40, int64_t{1} << 40, 2});
  EXPECT_EQ(table.bytes(), std::numeric_limits<int64_t>::max());
}

}  // namespace
}  // namespace sluice
