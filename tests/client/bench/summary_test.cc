#include "client/bench/summary.h"

#include <utility>

#include "gtest/gtest.h"

namespace sluice {
namespace {

absl::Duration Ms(int64_t ms) { return absl::Milliseconds(ms); }

RequestRecord Request(Outcome outcome, int64_t due_ms, int64_t ended_ms,
                      std::vector<TokenMessage> messages) {
  RequestRecord request;
  request.outcome = outcome;
  request.due = Ms(due_ms);
  request.sent = Ms(due_ms + 1);
  request.ended = Ms(ended_ms);
  request.prompt_tokens = 10;
  request.reused_tokens = 4;
  request.messages = std::move(messages);
  return request;
}

TEST(SummaryTest, NothingIsZero) {
  const BenchSummary summary = Summarize({}, {});
  EXPECT_EQ(summary.ok, 0);
  EXPECT_EQ(summary.PerSecond(5), 0);
  EXPECT_TRUE(summary.timeline.empty());
}

TEST(SummaryTest, CountsAndLatenciesOfOneRequest) {
  LoadResult run;
  run.elapsed = Ms(1000);
  run.requests = {Request(Outcome::kOk, 100, 400, {{Ms(200), 1}, {Ms(260), 3}, {Ms(300), 1}})};
  const BenchSummary summary = Summarize(run, {});
  EXPECT_EQ(summary.ok, 1);
  EXPECT_EQ(summary.completed, 1);
  EXPECT_EQ(summary.prompt_tokens, 10);
  EXPECT_EQ(summary.reused_tokens, 4);
  EXPECT_EQ(summary.new_tokens, 5);
  EXPECT_EQ(summary.messages, 3);
  EXPECT_EQ(summary.PerSecond(summary.new_tokens), 5);
  EXPECT_EQ(summary.first_token.Summarize().max, Ms(100));
  EXPECT_EQ(summary.whole.Summarize().max, Ms(300));
  EXPECT_EQ(summary.late.Summarize().max, Ms(1));
  EXPECT_EQ(summary.inter_token.Summarize().count, 4);  // 20, 20, 20, 40
  EXPECT_EQ(summary.inter_token.Summarize().p50, Ms(20));
  EXPECT_EQ(summary.inter_token.Summarize().mean, Ms(25));
  EXPECT_EQ(summary.between_messages.Summarize().max, Ms(60));
  EXPECT_DOUBLE_EQ(summary.mean_running, 0.3);
  EXPECT_EQ(summary.most_running, 1);
}

TEST(SummaryTest, TheWarmUpsRequestsGiveTokensButNoLatencies) {
  LoadResult run;
  run.elapsed = Ms(1000);
  run.requests = {Request(Outcome::kOk, -500, 200, {{Ms(-100), 1}, {Ms(50), 1}, {Ms(150), 1}})};
  const BenchSummary summary = Summarize(run, {});
  EXPECT_EQ(summary.ok, 0);
  EXPECT_EQ(summary.completed, 1);
  EXPECT_EQ(summary.prompt_tokens, 0);  // its first token came in the warm-up
  EXPECT_EQ(summary.new_tokens, 2);
  EXPECT_TRUE(summary.first_token.empty());
  EXPECT_TRUE(summary.inter_token.empty());
  EXPECT_DOUBLE_EQ(summary.mean_running, 0.2);
}

TEST(SummaryTest, TokensAfterTheEndDoNotCount) {
  LoadResult run;
  run.elapsed = Ms(1000);
  run.requests = {Request(Outcome::kCutOff, 900, 1010, {{Ms(990), 1}, {Ms(1005), 1}}),
                  Request(Outcome::kCutOff, 950, 1010, {{Ms(1004), 1}})};
  const BenchSummary summary = Summarize(run, {});
  EXPECT_EQ(summary.cut_off, 2);
  EXPECT_EQ(summary.new_tokens, 1);
  EXPECT_EQ(summary.prompt_tokens, 10);
  EXPECT_EQ(summary.first_token.Summarize().count, 1);
  EXPECT_TRUE(summary.inter_token.empty());
}

TEST(SummaryTest, WaitingAtTheEndIsSaid) {
  LoadResult run;
  run.elapsed = Ms(1000);
  run.requests = {Request(Outcome::kCutOff, 300, 1000, {}),
                  Request(Outcome::kCutOff, 100, 1000, {}),
                  Request(Outcome::kCutOff, 0, 1000, {{Ms(10), 1}})};
  const BenchSummary summary = Summarize(run, {});
  EXPECT_EQ(summary.cut_off, 3);
  EXPECT_EQ(summary.cut_off_waiting, 2);
  EXPECT_EQ(summary.longest_wait, Ms(900));
  EXPECT_EQ(summary.most_running, 3);
}

TEST(SummaryTest, GoodputIsOfRequestsThatMetTheObjective) {
  LoadResult run;
  run.elapsed = Ms(2000);
  run.requests = {Request(Outcome::kOk, 0, 500, {{Ms(50), 1}, {Ms(60), 7}}),
                  Request(Outcome::kOk, 0, 500, {{Ms(51), 1}, {Ms(60), 7}}),
                  Request(Outcome::kRejected, 0, 1, {}), Request(Outcome::kCutOff, 1980, 2000, {}),
                  Request(Outcome::kOk, -10, 500, {{Ms(30), 1}})};
  SloTargets targets;
  targets.first_token = Ms(50);
  const BenchSummary summary = Summarize(run, targets);
  EXPECT_EQ(summary.slo_met, 1);
  EXPECT_EQ(summary.slo_judged, 3);  // not the one that was cut off in time, nor the warm-up's
  EXPECT_EQ(summary.slo_met_tokens, 8);
  EXPECT_DOUBLE_EQ(summary.PerSecond(summary.slo_met), 0.5);
}

TEST(SummaryTest, TheTimelineHasEveryTokenOnce) {
  LoadResult run;
  run.elapsed = Ms(1000);
  run.requests = {Request(Outcome::kOk, 0, 1000, {{Ms(0), 1}, {Ms(499), 2}, {Ms(1000), 4}})};
  const BenchSummary summary = Summarize(run, {});
  ASSERT_EQ(summary.timeline.size(), 20u);
  EXPECT_EQ(summary.slice, Ms(50));
  EXPECT_EQ(summary.timeline.front().new_tokens, 1);
  EXPECT_EQ(summary.timeline[9].new_tokens, 2);
  EXPECT_EQ(summary.timeline.back().new_tokens, 4);
  EXPECT_EQ(summary.timeline.back().completed, 1);
  EXPECT_EQ(summary.timeline.front().first_token.Summarize().count, 1);
  for (const TimelineSlice& slice : summary.timeline) EXPECT_NEAR(slice.running, 1, 1e-9);
}

}  // namespace
}  // namespace sluice
