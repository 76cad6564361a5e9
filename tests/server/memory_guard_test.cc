#include "server/memory_guard.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "tests/fakes/fake_clock.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

class CgroupTest : public testing::Test {
 protected:
  CgroupTest() { fs::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text << "\n";
  }
  const std::string root_ = testing::TempDir() + "/cgroup";
};

TEST_F(CgroupTest, TheSmallestBoundOfVersionTwoCounts) {
  EXPECT_EQ(CgroupMemoryLimit(root_), 0);
  Write("/proc/self/cgroup", "0::/system.slice/sluiced.service");
  EXPECT_EQ(CgroupMemoryLimit(root_), 0);
  Write("/sys/fs/cgroup/system.slice/sluiced.service/memory.max", "max");
  EXPECT_EQ(CgroupMemoryLimit(root_), 0);
  Write("/sys/fs/cgroup/system.slice/memory.max", "2147483648");
  EXPECT_EQ(CgroupMemoryLimit(root_), int64_t{2} << 30);
  Write("/sys/fs/cgroup/system.slice/sluiced.service/memory.max", "1000000");
  EXPECT_EQ(CgroupMemoryLimit(root_), 1000000);
}

TEST_F(CgroupTest, VersionOneInAContainer) {
  // The group's name is the host's, what is mounted is the group itself.
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/0123\n0::/");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  EXPECT_EQ(CgroupMemoryLimit(root_), 0);
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912");
  EXPECT_EQ(CgroupMemoryLimit(root_), 536870912);
}

TEST_F(CgroupTest, NonsenseIsNoBound) {
  Write("/proc/self/cgroup", "\n:::\n0::relative\nmemory");
  EXPECT_EQ(CgroupMemoryLimit(root_), 0);
  Write("/proc/self/cgroup", "0::/a");
  Write("/sys/fs/cgroup/a/memory.max", "many");
  EXPECT_EQ(CgroupMemoryLimit(root_), 0);
}

TEST(MemoryGuardTest, RefusesAboveNineTenthsUntilThereIsRoomAgain) {
  FakeClock clock;
  Admission admission(AdmissionLimits{}, &clock);
  MemoryGuard guard(1000, &admission, &clock);
  guard.Look(901);
  // Whatever the memory is spent on, no call of ours would give it back: one is let in.
  absl::StatusOr<Permit> alone = admission.Admit(1);
  ASSERT_TRUE(alone.ok());
  absl::Duration retry;
  EXPECT_TRUE(absl::IsResourceExhausted(admission.Admit(1, {}, &retry).status()));
  EXPECT_GT(retry, absl::ZeroDuration());
  guard.Look(880);
  EXPECT_TRUE(absl::IsResourceExhausted(admission.Admit(1).status()));
  guard.Look(850);
  EXPECT_TRUE(admission.Admit(1).ok());
  guard.Look(900);
  EXPECT_TRUE(admission.Admit(1).ok());
}

TEST(MemoryGuardTest, WithoutABoundNothingIsRefused) {
  FakeClock clock;
  Admission admission(AdmissionLimits{}, &clock);
  MemoryGuard guard(0, &admission, &clock);
  guard.Look(int64_t{1} << 50);
  guard.Look();
  const absl::StatusOr<Permit> one = admission.Admit(1);
  EXPECT_TRUE(admission.Admit(1).ok());
}

TEST(MemoryGuardTest, LooksAtThisProcess) {
  FakeClock clock;
  Admission admission(AdmissionLimits{}, &clock);
  MemoryGuard guard(1000, &admission, &clock);
  guard.Look();
  const absl::StatusOr<Permit> one = admission.Admit(1);
  EXPECT_TRUE(absl::IsResourceExhausted(admission.Admit(1).status()));
}

}  // namespace
}  // namespace sluice
