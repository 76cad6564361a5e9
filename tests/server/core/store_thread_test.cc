#include "server/core/store_thread.h"

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/server/core/server_rig.h"

namespace sluice {
namespace {

TEST(StoreThreadTest, RunsJobsInOrderAndAllOfThemBeforeItEnds) {
  std::vector<uint64_t> ran;  // of the store thread, until it has ended
  std::vector<uint64_t> done;
  {
    StoreThread store([&](StoreJob* job) { ran.push_back(job->id); });
    for (uint64_t id = 1; id <= 100; ++id) {
      auto job = std::make_unique<StoreJob>();
      job->id = id;
      store.Post(std::move(job), [&](std::unique_ptr<StoreJob> back) { done.push_back(back->id); });
    }
  }
  ASSERT_EQ(ran.size(), 100u);
  EXPECT_EQ(ran, done);
  for (size_t i = 0; i < ran.size(); ++i) EXPECT_EQ(ran[i], i + 1);
}

TEST(DeviceThreadSessionsTest, CommandsReachTheSessionsUntilStop) {
  ServerRig rig;
  std::atomic<int> answers{0};
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(rig.device->Post([&](Sessions& sessions) {
      sessions.Get("", "nobody", [&](absl::StatusOr<SessionInfo> session) {
        EXPECT_TRUE(absl::IsNotFound(session.status()));
        ++answers;
      });
    }));
  }
  rig.device->Stop();
  EXPECT_EQ(answers.load(), 50);  // what was taken is done
  EXPECT_FALSE(rig.device->Post([&](Sessions&) { ++answers; }));
  EXPECT_EQ(answers.load(), 50);
  rig.ExpectNothingLeft();
}

}  // namespace
}  // namespace sluice
