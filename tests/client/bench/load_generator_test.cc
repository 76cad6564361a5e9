#include "client/bench/load_generator.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "client/bench/report.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

class LoadGeneratorTest : public ::testing::Test {
 protected:
  LoadResult Run(const LoadOptions& options) {
    const Client client({.address = server_.address()});
    LoadGenerator generator(
        client,
        [this](int64_t index) {
          indexes_.insert(index);
          return v1::GenerateRequest();
        },
        &cancellation_);
    return generator.Run(options, absl::Hours(1), [](const LoadProgress&) {});
  }

  // Streams that send one token and then nothing until the test releases them or the client leaves.
  void GenerateUntilCancelled() {
    server_.generate = [this](grpc::ServerWriter<v1::GenerateResponse>* writer) {
      ++started_;
      while (writer->Write(DeltaEvent(0, "x", {1}))) {
      }
      return grpc::Status::CANCELLED;
    };
  }

  std::atomic<int> started_ = 0;
  FakeServer server_;
  Cancellation cancellation_;
  std::set<int64_t> indexes_;
};

TEST_F(LoadGeneratorTest, ClosedLoopRunsEveryRequestOnce) {
  const LoadResult result = Run({.concurrency = 3, .requests = 10});
  EXPECT_EQ(result.ok, 10);
  EXPECT_EQ(result.failed, 0);
  EXPECT_EQ(result.cut_off, 0);
  EXPECT_EQ(result.new_tokens, 30);
  EXPECT_EQ(result.messages, 20);
  EXPECT_EQ(result.prompt_tokens, 40);
  EXPECT_EQ(indexes_.size(), 10u);
  EXPECT_EQ(*indexes_.rbegin(), 9);
  EXPECT_EQ(result.first_token.Summarize().count, 10);
  // The second message's two tokens share its gap.
  EXPECT_EQ(result.between_messages.Summarize().count, 10);
  EXPECT_EQ(result.inter_token.Summarize().count, 20);
  EXPECT_EQ(result.whole.Summarize().count, 10);
}

TEST_F(LoadGeneratorTest, ClosedLoopKeepsToItsConcurrency) {
  std::atomic<int> running = 0;
  std::atomic<int> most = 0;
  server_.generate = [&](grpc::ServerWriter<v1::GenerateResponse>* writer) {
    const int now = ++running;
    int seen = most;
    while (now > seen && !most.compare_exchange_weak(seen, now)) {
    }
    writer->Write(FinishedEvent(0, v1::FINISH_REASON_EOS, 0));
    --running;
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({.concurrency = 2, .requests = 40}).ok, 40);
  EXPECT_LE(most, 2);
}

TEST_F(LoadGeneratorTest, OpenLoopRunsEveryRequestOnce) {
  const LoadResult result = Run({.rate = 2000, .requests = 20, .seed = 3});
  EXPECT_EQ(result.ok, 20);
  EXPECT_EQ(indexes_.size(), 20u);
}

TEST_F(LoadGeneratorTest, DurationCutsOffWhatRuns) {
  GenerateUntilCancelled();
  const LoadResult result = Run({.concurrency = 2, .duration = absl::Milliseconds(100)});
  EXPECT_EQ(result.ok, 0);
  EXPECT_EQ(result.failed, 0);
  EXPECT_EQ(result.cut_off, 2);
  EXPECT_GE(result.elapsed, absl::Milliseconds(100));
}

TEST_F(LoadGeneratorTest, CancelEndsTheRun) {
  GenerateUntilCancelled();
  std::thread canceller([this] {
    while (started_ < 2) std::this_thread::yield();
    EXPECT_TRUE(cancellation_.Cancel());
  });
  const LoadResult result = Run({.concurrency = 2});
  canceller.join();
  EXPECT_EQ(result.cut_off, 2);
}

TEST_F(LoadGeneratorTest, FailuresAreCountedByTheirMessage) {
  server_.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  const LoadResult result = Run({.requests = 3});
  EXPECT_EQ(result.ok, 0);
  EXPECT_EQ(result.failed, 3);
  ASSERT_EQ(result.errors.size(), 1u);
  EXPECT_EQ(result.errors.at("full (RESOURCE_EXHAUSTED)"), 3);
  EXPECT_FALSE(result.gave_up);
}

TEST_F(LoadGeneratorTest, AStreamWithoutFinishedIsAFailure) {
  server_.generate_events.pop_back();
  EXPECT_EQ(Run({.requests = 1}).failed, 1);
}

TEST_F(LoadGeneratorTest, GivesUpWhenTheDaemonGoesAway) {
  server_.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  const LoadResult result = Run({.concurrency = 1, .requests = 1'000'000});
  EXPECT_TRUE(result.gave_up);
  EXPECT_EQ(result.failed, 1);
}

TEST(NextArrivalGapTest, IsRepeatableAndHasTheRightMean) {
  uint64_t a = 7;
  uint64_t b = 7;
  absl::Duration total;
  constexpr int kGaps = 20000;
  for (int i = 0; i < kGaps; ++i) {
    const absl::Duration gap = NextArrivalGap(50, &a);
    ASSERT_EQ(gap, NextArrivalGap(50, &b));
    ASSERT_GE(gap, absl::ZeroDuration());
    total += gap;
  }
  // The mean of exponential gaps; its standard error here is 0.14 ms.
  EXPECT_NEAR(absl::ToDoubleMilliseconds(total / kGaps), 20, 0.7);
}

TEST(ReportTest, ShowsEveryNumber) {
  LoadResult result;
  result.ok = 1200;
  result.failed = 1;
  result.elapsed = absl::Seconds(2);
  result.prompt_tokens = 4000;
  result.new_tokens = 3000;
  result.messages = 1500;
  result.errors["full (RESOURCE_EXHAUSTED)"] = 1;
  result.first_token.Add(absl::Microseconds(12345));
  const BenchSetup setup = {"host:1", "tiny", "cpu", "closed loop, 2 streams", "one prompt", 16};
  EXPECT_EQ(FormatReport(setup, result),
            "tiny on cpu at host:1; closed loop, 2 streams; one prompt, 16 new tokens a request\n"
            "\n"
            "requests      1,200 ok, 1 failed, 0 cut off in 2.00 s, 600.00 ok a second\n"
            "prompt tokens 4,000, 2,000 a second\n"
            "new tokens    3,000, 1,500 a second, 2.00 a message\n"
            "\n"
            "latency in ms              mean        p50        p90        p99        max\n"
            "first token               12.35      12.35      12.35      12.35      12.35\n"
            "inter-token                0.00       0.00       0.00       0.00       0.00\n"
            "between messages           0.00       0.00       0.00       0.00       0.00\n"
            "whole request              0.00       0.00       0.00       0.00       0.00\n"
            "failed 1 times: full (RESOURCE_EXHAUSTED)\n");
  EXPECT_THAT(ReportJson(setup, result), HasSubstr(R"("new_tokens_per_second":1500.0)"));
}

}  // namespace
}  // namespace sluice
