#include "client/bench/load_generator.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "client/bench/summary.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"

namespace sluice {
namespace {

class LoadGeneratorTest : public ::testing::Test {
 protected:
  BenchSummary Run(const LoadOptions& options) {
    const Client client({.address = server_.address()});
    LoadGenerator generator(
        client,
        [this](int64_t index) {
          indexes_.insert(index);
          return v1::GenerateRequest();
        },
        &cancellation_);
    result_ = generator.Run(options, absl::Hours(1), [](const LoadProgress&) {});
    return Summarize(result_, {});
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
  LoadResult result_;  // of the last run
};

TEST_F(LoadGeneratorTest, ClosedLoopRunsEveryRequestOnce) {
  const BenchSummary result = Run({.concurrency = 3, .requests = 10});
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
  const BenchSummary result = Run({.arrivals = {.rate = 2000, .seed = 3}, .requests = 20});
  EXPECT_EQ(result.ok, 20);
  EXPECT_EQ(indexes_.size(), 20u);
}

TEST_F(LoadGeneratorTest, DurationCutsOffWhatRuns) {
  GenerateUntilCancelled();
  const BenchSummary result = Run({.concurrency = 2, .duration = absl::Milliseconds(100)});
  EXPECT_EQ(result.ok, 0);
  EXPECT_EQ(result.failed, 0);
  EXPECT_EQ(result.cut_off, 2);
  EXPECT_GE(result.elapsed, absl::Milliseconds(100));
  for (const RequestRecord& request : result_.requests) {
    EXPECT_EQ(request.ended, result.elapsed);
    ASSERT_FALSE(request.messages.empty());
    EXPECT_LE(request.messages.back().at, result.elapsed);
  }
}

TEST_F(LoadGeneratorTest, CancelEndsTheRun) {
  GenerateUntilCancelled();
  std::thread canceller([this] {
    while (started_ < 2) std::this_thread::yield();
    EXPECT_TRUE(cancellation_.Cancel());
  });
  const BenchSummary result = Run({.concurrency = 2});
  canceller.join();
  EXPECT_EQ(result.cut_off, 2);
}

TEST_F(LoadGeneratorTest, OpenLoopDoesNotWaitForAnswers) {
  // Nobody is answered before all have come.
  constexpr int kRequests = 8;
  server_.generate = [this](grpc::ServerWriter<v1::GenerateResponse>* writer) {
    ++started_;
    while (started_ < kRequests) std::this_thread::yield();
    writer->Write(FinishedEvent(0, v1::FINISH_REASON_EOS, 0));
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({.arrivals = {.rate = 1000, .seed = 3}, .requests = kRequests}).ok, kRequests);
}

TEST_F(LoadGeneratorTest, LatenciesCountFromTheTimeThatWasMeant) {
  // One thread makes and sends requests; here it needs 20 ms for each, and one is due every 1 ms.
  const Client client({.address = server_.address()});
  LoadGenerator slow(
      client,
      [](int64_t) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        return v1::GenerateRequest();
      },
      nullptr);
  const LoadResult result =
      slow.Run({.arrivals = {.rate = 1000, .process = ArrivalProcess::kUniform}, .requests = 5},
               absl::Hours(1), [](const LoadProgress&) {});
  ASSERT_EQ(result.requests.size(), 5u);
  for (const RequestRecord& request : result.requests) {
    EXPECT_EQ(request.due, absl::Milliseconds(request.index));
    EXPECT_GE(request.sent - request.due, absl::Milliseconds(20 + 19 * request.index));
    EXPECT_GE(request.first_token(), request.sent - request.due);
  }
}

TEST_F(LoadGeneratorTest, WhatIsDueInTheWarmUpIsNotMeasured) {
  const BenchSummary result =
      Run({.concurrency = 2, .warmup = absl::Milliseconds(50), .requests = 6});
  EXPECT_EQ(result.ok, 6);
  EXPECT_EQ(result.whole.Summarize().count, 6);
  EXPECT_GT(indexes_.size(), 6u);
  int warmup = 0;
  for (const RequestRecord& request : result_.requests) warmup += request.measured() ? 0 : 1;
  EXPECT_EQ(indexes_.size(), static_cast<size_t>(6 + warmup));
}

TEST_F(LoadGeneratorTest, TurnsContinueASessionThatIsRemovedAfterwards) {
  EXPECT_EQ(Run({.requests = 7, .turns = 3}).ok, 7);
  std::vector<int32_t> turns;
  for (const RequestRecord& request : result_.requests) turns.push_back(request.turn);
  EXPECT_EQ(turns, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 0}));
  EXPECT_FALSE(server_.generate_request.session_id().empty());
  EXPECT_EQ(server_.generate_affinity, server_.generate_request.session_id());
  EXPECT_TRUE(server_.sessions.all().empty());
}

TEST_F(LoadGeneratorTest, ASessionEndsWithTheTurnThatFails) {
  int calls = 0;
  server_.generate = [&](grpc::ServerWriter<v1::GenerateResponse>* writer) {
    if (++calls == 2) return grpc::Status(grpc::StatusCode::INTERNAL, "broken");
    writer->Write(FinishedEvent(0, v1::FINISH_REASON_EOS, 0));
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({.requests = 4, .turns = 5}).failed, 1);
  std::vector<int32_t> turns;
  for (const RequestRecord& request : result_.requests) turns.push_back(request.turn);
  EXPECT_EQ(turns, (std::vector<int32_t>{0, 1, 0, 1}));
}

TEST_F(LoadGeneratorTest, RejectsAreNotFailures) {
  server_.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  const BenchSummary result = Run({.requests = 3});
  EXPECT_EQ(result.ok, 0);
  EXPECT_EQ(result.rejected, 3);
  EXPECT_EQ(result.failed, 0);
  EXPECT_EQ(result.codes.at(absl::StatusCode::kResourceExhausted), 3);
  ASSERT_EQ(result.errors.size(), 1u);
  EXPECT_EQ(result.errors.begin()->first.second, "full");
  EXPECT_FALSE(result.gave_up);
}

TEST_F(LoadGeneratorTest, FailuresAreCountedByTheirCode) {
  server_.status = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "n: is 0");
  const BenchSummary result = Run({.requests = 2});
  EXPECT_EQ(result.rejected, 0);
  EXPECT_EQ(result.failed, 2);
  EXPECT_EQ(result.codes.at(absl::StatusCode::kInvalidArgument), 2);
}

TEST_F(LoadGeneratorTest, AStreamWithoutFinishedIsAFailure) {
  server_.generate_events.pop_back();
  EXPECT_EQ(Run({.requests = 1}).failed, 1);
}

TEST_F(LoadGeneratorTest, GivesUpWhenTheDaemonGoesAway) {
  server_.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  const BenchSummary result = Run({.concurrency = 1, .requests = 1'000'000});
  EXPECT_TRUE(result.gave_up);
  EXPECT_EQ(result.failed, 1);
}

}  // namespace
}  // namespace sluice
