#include "server/model_host.h"

#include "gtest/gtest.h"

namespace sluice {
namespace {

constexpr int64_t kGiB = 1 << 30;

BackendInfo Info() {
  BackendInfo info;
  info.prompt_grid = 64;
  info.default_slots = 64;
  return info;
}

TEST(CountSlots, DefaultIsTheBackendsOrWhatFits) {
  EXPECT_EQ(*CountSlots(0, 512, Info(), 1 << 20, 4 * kGiB), 64);
  EXPECT_EQ(*CountSlots(0, 512, Info(), kGiB, 4 * kGiB), 4);
  EXPECT_EQ(*CountSlots(0, 512, Info(), 100 * kGiB, 4 * kGiB), 1);
  EXPECT_EQ(*CountSlots(0, 512, Info(), 100 * kGiB, 0), 1);
  EXPECT_EQ(*CountSlots(0, 100, Info(), 1 << 20, 4 * kGiB), 36);
}

TEST(CountSlots, BytesAreTheOperators) {
  EXPECT_EQ(*CountSlots(1000, 512, Info(), 100, 0), 10);
  EXPECT_TRUE(absl::IsInvalidArgument(CountSlots(99, 512, Info(), 100, kGiB).status()));
}

TEST(CountSlots, AStepHasRoomForEverySlotAndAChunk) {
  EXPECT_EQ(*CountSlots(64, 128, Info(), 1, kGiB), 64);
  EXPECT_EQ(*CountSlots(64, 127, Info(), 1, kGiB), 63) << "no more than there is room for";
  EXPECT_EQ(*CountSlots(1 << 30, 65, Info(), 1, kGiB), 1);
  EXPECT_EQ(*CountSlots(0, 65, Info(), 1, kGiB), 1);
  EXPECT_TRUE(absl::IsInvalidArgument(CountSlots(0, 64, Info(), 1, kGiB).status()));
}

}  // namespace
}  // namespace sluice
