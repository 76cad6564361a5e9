// Compares the predicted size of a model with what the CPU backend's own functions take.
#include "kernels/footprint.h"

#include <vector>

#include "engine/checkpoint/families/gla.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/pack.h"

namespace sluice {
namespace {

GlaShape Shape() {
  GlaShape shape;
  shape.vocab = 61;
  shape.layers = 2;
  shape.hidden = 120;
  shape.heads = 4;
  shape.kv_heads = 2;
  shape.dk = 16;
  shape.dv = 24;
  shape.intermediate = 90;
  return shape;
}

TEST(Footprint, CpuBytesAreThoseOfThePackedMatrices) {
  ThreadPool pool(1);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int64_t rows : {1, 8, 15, 16, 17, 48}) {
      for (const int64_t cols : {1, 16, 33}) {
        const std::vector<char> bytes(rows * cols * DTypeBytes(dtype));
        const MatrixView view{bytes.data(), dtype, rows, cols};
        const MatrixView unread{nullptr, dtype, rows, cols};
        WeightSizer stacked(DeviceKind::kCpu);
        ASSERT_TRUE(stacked.LoadLinear({unread, unread}).ok());
        const auto packed = PackRows({view, view}, &pool);
        ASSERT_TRUE(packed.ok());
        EXPECT_EQ(stacked.bytes(), packed->buffer.bytes()) << rows << " x " << cols;
        WeightSizer gate_up(DeviceKind::kCpu);
        ASSERT_TRUE(gate_up.LoadGateUp(unread, unread).ok());
        const auto pairs = PackGateUp(view, view, &pool);
        ASSERT_TRUE(pairs.ok());
        EXPECT_EQ(gate_up.bytes(), pairs->buffer.bytes()) << rows << " x " << cols;
      }
    }
  }
}

TEST(Footprint, SlotsAreTheBackends) {
  GlaShape shape = Shape();
  const std::unique_ptr<Backend> cpu = MakeCpuBackend({.threads = 1});
  for (const int64_t conv_size : {0, 4}) {
    shape.conv_size = conv_size;
    EXPECT_EQ(SlotBytes(DeviceKind::kCpu, shape.Spec()), cpu->SlotBytes(shape.Spec()));
    EXPECT_EQ(SlotBytes(DeviceKind::kCuda, shape.Spec()), MakeStateTable(shape.Spec()).bytes());
  }
}

TEST(Footprint, CudaRowsAreWholeLinesOfBf16) {
  WeightSizer sizer(DeviceKind::kCuda);
  ASSERT_TRUE(sizer.LoadLinear({MatrixView{nullptr, DType::kF32, 3, 65}}).ok());
  EXPECT_EQ(sizer.bytes(), 3 * 128 * 2);
  ASSERT_TRUE(sizer.LoadVector({nullptr, DType::kBF16, 1, 65}).ok());
  EXPECT_EQ(sizer.bytes(), 3 * 128 * 2 + 128 * 4);
  const MatrixView gate{nullptr, DType::kF32, 17, 64};  // two blocks of 16 rows
  ASSERT_TRUE(sizer.LoadGateUp(gate, gate).ok());
  EXPECT_EQ(sizer.bytes(), 3 * 128 * 2 + 128 * 4 + 2 * 32 * 64 * 2);
}

}  // namespace
}  // namespace sluice
