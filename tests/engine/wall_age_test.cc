#include "engine/wall_age.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/fake_clock.h"

namespace sluice {
namespace {

class WallAgeTest : public testing::Test {
 protected:
  FakeClock clock;
  std::vector<std::string> told;
  WallAge ages{&clock, [this](const std::string& why) { told.push_back(why); }};
};

TEST_F(WallAgeTest, AgesGrowWithTime) {
  const absl::Time stamp = clock.WallNow();
  EXPECT_EQ(ages.AgeOf(stamp), absl::ZeroDuration());
  clock.Advance(absl::Hours(50));
  EXPECT_EQ(ages.AgeOf(stamp), absl::Hours(50));
  EXPECT_EQ(ages.AgeOf(clock.WallNow() + absl::Seconds(5)), absl::ZeroDuration())
      << "another machine's";
  EXPECT_EQ(ages.distrusted(), -absl::InfiniteDuration());
  EXPECT_TRUE(told.empty());
}

TEST_F(WallAgeTest, AJumpAheadIsToldOnceAndCountsFromThen) {
  clock.Advance(absl::Hours(3));
  clock.JumpWall(absl::Minutes(59));
  ages.Look();
  EXPECT_TRUE(told.empty()) << "people set clocks";
  clock.JumpWall(absl::Hours(20));
  ages.Look();
  EXPECT_EQ(ages.distrusted(), absl::Hours(3));
  clock.Advance(absl::Hours(1));
  ages.Look();
  EXPECT_EQ(ages.distrusted(), absl::Hours(3)) << "the same jump";
  ASSERT_EQ(told.size(), 1u);
  EXPECT_NE(told[0].find("went ahead by 20h59m"), std::string::npos) << told[0];
  clock.JumpWall(-absl::Hours(20));
  ages.Look();
  EXPECT_EQ(told.size(), 1u) << "back, and nothing is newer";
  clock.JumpWall(absl::Hours(20));
  ages.Look();
  EXPECT_EQ(told.size(), 2u) << "ahead once more";
}

TEST_F(WallAgeTest, AClockBeforeTheNewestStampIsToldOnce) {
  const absl::Time stamp = clock.WallNow();
  clock.JumpWall(-absl::Hours(24));
  clock.Advance(absl::Minutes(1));
  EXPECT_EQ(ages.AgeOf(stamp), absl::ZeroDuration());
  EXPECT_EQ(ages.distrusted(), absl::Minutes(1));
  clock.Advance(absl::Minutes(1));
  ages.AgeOf(stamp - absl::Hours(1));
  ages.AgeOf(stamp);
  EXPECT_EQ(ages.distrusted(), absl::Minutes(1));
  EXPECT_EQ(told.size(), 1u);
  clock.Advance(absl::Hours(24));
  ages.Look();
  clock.JumpWall(-absl::Hours(30));
  ages.Look();
  EXPECT_EQ(told.size(), 2u) << "it was right in between";
}

}  // namespace
}  // namespace sluice
