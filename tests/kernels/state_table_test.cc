// What a model's state consists of, and where each part lies.
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

TEST(StateTable, SizesThatDoNotFitSaturate) {
  StateTable table;
  table.Add(0, StatePartKind::kMatrix, {int64_t{1} << 40, int64_t{1} << 40, 2});
  EXPECT_EQ(table.bytes(), std::numeric_limits<int64_t>::max());
}

}  // namespace
}  // namespace sluice
