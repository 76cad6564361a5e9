#include "kernels/cpu/thread_pool.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace sluice {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEveryTaskOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  for (int64_t tasks : {0, 1, 2, 3, 7, 100, 1000}) {
    std::vector<int> runs(tasks);
    pool.ParallelFor(tasks, [&](int64_t task, int thread) {
      ++runs[task];
      EXPECT_GE(thread, 0);
      EXPECT_LT(thread, pool.threads());
    });
    EXPECT_EQ(runs, std::vector<int>(tasks, 1));
  }
}

// A loop's writes are visible after it, and to the next loop, without any synchronisation of the
// caller's.
TEST_P(ThreadPoolTest, LoopsAreOrdered) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> values(64);
  for (int round = 0; round < 20000; ++round) {
    pool.ParallelFor(64, [&](int64_t task, int) { values[(task + round) % 64] += task; });
  }
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}),
            int64_t{20000} * 64 * 63 / 2);
}

TEST_P(ThreadPoolTest, ThreadsAreExclusive) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> per_thread(pool.threads());
  for (int round = 0; round < 1000; ++round) {
    pool.ParallelFor(10, [&](int64_t, int thread) { ++per_thread[thread]; });
  }
  EXPECT_EQ(std::accumulate(per_thread.begin(), per_thread.end(), int64_t{0}), 10000);
}

TEST_P(ThreadPoolTest, WorksAfterItsWorkersSlept) {
  ThreadPool pool(GetParam());
  std::atomic<int> runs{0};
  for (int round = 0; round < 100; ++round) {
    // Longer than workers spin: busy, so that it holds on any machine.
    const auto until =
        std::chrono::steady_clock::now() + std::chrono::microseconds(round % 2 == 0 ? 200 : 20);
    while (std::chrono::steady_clock::now() < until) {
    }
    if (round % 3 == 0) pool.Wake();
    pool.ParallelFor(8, [&](int64_t, int) { ++runs; });
  }
  EXPECT_EQ(runs, 800);
}

INSTANTIATE_TEST_SUITE_P(, ThreadPoolTest, testing::Values(1, 2, 3, 8));

TEST(ThreadPoolLifetimeTest, CanBeDestroyedAtAnyMoment) {
  for (int round = 0; round < 200; ++round) {
    auto pool = std::make_unique<ThreadPool>(4);
    std::atomic<int> runs{0};
    if (round % 2 == 0) pool->ParallelFor(round, [&](int64_t, int) { ++runs; });
    if (round % 5 == 0) pool->Wake();
    pool.reset();
    EXPECT_EQ(runs, round % 2 == 0 ? round : 0);
  }
}

TEST(AvailableThreadsTest, IsAtLeastOne) { EXPECT_GE(AvailableThreads(), 1); }

}  // namespace
}  // namespace sluice
