// Models whose states grow, on the real CPU backend: the limit of a sequence and what is refused
// for it, and the pages that calls take, share and give back.

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/real_engine.h"

namespace sluice {
namespace {

using testing::HasSubstr;

constexpr char kModel[] = "tests/goldens/llama/rope_llama3";
constexpr char kHybrid[] = "tests/goldens/gla/hybrid_window";

Request Generate(int64_t prompt, int32_t new_tokens, uint64_t seed = 1) {
  std::mt19937_64 rng(seed);
  Request request;
  request.prompt = RandomTokens(&rng, 37, prompt);
  request.stop.max_new_tokens = new_tokens;
  request.stop.ignore_eos = true;
  request.output.text = false;
  request.output.token_ids = true;
  return request;
}

std::shared_ptr<RecordingSink> Submit(RealEngine* real, Request request) {
  auto sink = std::make_shared<RecordingSink>();
  real->engine().Submit(std::move(request), sink);
  return sink;
}

std::shared_ptr<RecordingSink> RunCall(RealEngine* real, Request request) {
  auto sink = Submit(real, std::move(request));
  while (real->engine().Step()) {
  }
  return sink;
}

class LimitTest : public testing::Test {
 protected:
  RealEngine real_{kModel, {.slots = 4, .attention = {128, 4}}};
};

TEST_F(LimitTest, APromptThatLeavesNoRoomForOneMoreIsRefusedBeforeItRuns) {
  for (const bool given : {true, false}) {
    Request request = Generate(128, 1);
    request.stop.max_new_tokens_given = given;
    const auto sink = RunCall(&real_, request);
    EXPECT_TRUE(absl::IsOutOfRange(*sink->status));
    EXPECT_THAT(std::string(sink->status->message()),
                HasSubstr("128 tokens, which leaves no room for one more"));
    EXPECT_TRUE(sink->events.empty());
  }
  EXPECT_EQ(real_.engine().stats().steps.value(), 0u);
}

TEST_F(LimitTest, AnExplicitNumberBeyondItIsRefused) {
  const auto sink = RunCall(&real_, Generate(100, 29));
  EXPECT_TRUE(absl::IsOutOfRange(*sink->status));
  EXPECT_THAT(std::string(sink->status->message()),
              HasSubstr("stop.max_new_tokens is 29 behind 100 tokens, must be at most 28"));
  EXPECT_TRUE(RunCall(&real_, Generate(100, 28))->status->ok());
}

TEST_F(LimitTest, WithoutANumberACallEndsAtTheLimit) {
  Request request = Generate(100, 256);
  request.stop.max_new_tokens_given = false;
  const auto sink = RunCall(&real_, request);
  ASSERT_TRUE(sink->status->ok()) << *sink->status;
  EXPECT_EQ(sink->token_ids[0].size(), 28u);
  EXPECT_EQ(sink->finished[0].reason, FinishReason::kMaxTokens);
}

TEST_F(LimitTest, WhatGeneratesNothingNeedsNoRoomForOneMore) {
  EXPECT_TRUE(RunCall(&real_, Generate(128, 0))->status->ok());
  EXPECT_TRUE(absl::IsOutOfRange(*RunCall(&real_, Generate(129, 0))->status));
  Request score = Generate(128, 0);
  score.kind = RequestKind::kScore;
  score.output.prompt_logprobs = 0;
  score.score_alternatives = 2;
  const auto sink = RunCall(&real_, score);
  EXPECT_TRUE(sink->status->ok()) << *sink->status;
  EXPECT_TRUE(sink->summary.has_value());
  score.prompt = Generate(129, 0).prompt;
  EXPECT_TRUE(absl::IsOutOfRange(*RunCall(&real_, score)->status));
}

TEST_F(LimitTest, ASessionsHistoryCounts) {
  const auto ok = [](absl::StatusOr<SessionInfo> info) { ASSERT_TRUE(info.ok()) << info.status(); };
  real_.engine().sessions().Create("", {.id = "s"}, ok);
  Request request = Generate(60, 10);
  request.session_id = "s";
  ASSERT_TRUE(RunCall(&real_, request)->status->ok());
  request.prompt.resize(50);
  request.stop.max_new_tokens = 9;
  EXPECT_TRUE(absl::IsOutOfRange(*RunCall(&real_, request)->status));
  request.stop.max_new_tokens = 8;
  const auto sink = RunCall(&real_, request);
  ASSERT_TRUE(sink->status->ok()) << *sink->status;
  EXPECT_EQ(sink->finished[0].session->position, 128);
  EXPECT_EQ(sink->finished[0].session->state_bytes, MakeStateTable(real_.spec()).BytesAt(127));
  request.prompt.resize(1);
  request.stop.max_new_tokens = 1;
  EXPECT_TRUE(absl::IsOutOfRange(*RunCall(&real_, request)->status));
}

TEST_F(LimitTest, SequencesThatCouldNeverHaveTheirPagesAreRefused) {
  Request request = Generate(10, 118);
  request.n = 3;
  const auto sink = RunCall(&real_, request);
  EXPECT_TRUE(absl::IsResourceExhausted(*sink->status));
  EXPECT_THAT(std::string(sink->status->message()), HasSubstr("take up to 6 pages"));
  // What they share counts once.
  request = Generate(64, 64);
  request.n = 3;
  EXPECT_TRUE(RunCall(&real_, request)->status->ok());
}

class PagesTest : public testing::TestWithParam<const char*> {};

TEST_P(PagesTest, CallsThatTogetherExceedThePoolTakeTurnsAndGiveAllBack) {
  RealEngine real(GetParam(), {.slots = 4, .attention = {256, 4}});
  const int64_t total = real.backend().pages().total;
  ASSERT_EQ(total, 4);
  Engine& engine = real.engine();
  auto first = std::make_shared<RecordingSink>(), second = std::make_shared<RecordingSink>();
  const RequestId a = engine.Submit(Generate(100, 90, 1), first);
  const RequestId b = engine.Submit(Generate(100, 90, 2), second);
  for (int i = 0; i < 20; ++i) engine.Step();
  // Three pages are promised to the first, so that the second waits whatever is free now.
  EXPECT_GT(first->token_ids[0].size(), 5u);
  EXPECT_TRUE(second->token_ids[0].empty());
  EXPECT_EQ(engine.stats().waiting.value(), 1);
  EXPECT_EQ(real.backend().pages().free, total - 2);
  engine.Cancel(a, absl::CancelledError());
  for (int i = 0; i < 20; ++i) engine.Step();
  EXPECT_GT(second->token_ids[0].size(), 5u);
  engine.Cancel(b, absl::CancelledError());
  while (engine.Step()) {
  }
  EXPECT_EQ(real.backend().pages().free, total);
  EXPECT_EQ(real.backend().pages().shared, 0);
  // To the last page, at the last token.
  EXPECT_TRUE(RunCall(&real, Generate(200, 56))->status->ok());
  EXPECT_EQ(real.backend().pages().free, total);
}

TEST_P(PagesTest, SequencesOfACallShareThePromptsFullPages) {
  RealEngine real(GetParam(), {.slots = 4, .attention = {512, 32}});
  Request request = Generate(130, 40);
  request.n = 3;
  const auto sink = Submit(&real, request);
  for (int i = 0; i < 10; ++i) real.engine().Step();
  EXPECT_EQ(real.backend().pages().shared, 2);
  EXPECT_EQ(real.backend().pages().free, 32 - 2 - 3);
  EXPECT_EQ(real.engine().stats().pages_shared.value(), 2);
  EXPECT_EQ(real.engine().stats().pages_used.value(), 5);
  while (real.engine().Step()) {
  }
  EXPECT_TRUE(sink->status->ok());
  EXPECT_EQ(real.backend().pages().free, 32);
}

TEST_P(PagesTest, AStateInTheWayLosesItsPages) {
  RealEngine real(GetParam(), {.slots = 4, .attention = {256, 4}});
  const auto ok = [](absl::StatusOr<SessionInfo> info) { ASSERT_TRUE(info.ok()) << info.status(); };
  real.engine().sessions().Create("", {.id = "s"}, ok);
  Request request = Generate(150, 10);
  request.session_id = "s";
  const auto first = RunCall(&real, request);
  ASSERT_TRUE(first->status->ok());
  EXPECT_EQ(real.backend().pages().free, 1);
  // A call without a session needs all of them.
  EXPECT_TRUE(RunCall(&real, Generate(200, 56))->status->ok());
  EXPECT_EQ(real.engine().stats().slot_evictions.value(), 1u);
  // The session goes on from the host, without a commit and with one.
  request = Generate(20, 60, 3);
  request.session_id = "s";
  request.commit = false;
  const auto looked = RunCall(&real, request);
  ASSERT_TRUE(looked->status->ok()) << *looked->status;
  request.commit = true;
  const auto committed = RunCall(&real, request);
  ASSERT_TRUE(committed->status->ok()) << *committed->status;
  EXPECT_EQ(looked->token_ids[0], committed->token_ids[0]);
  // Beside its own state in a slot a call that commits nothing finds too few pages: the state
  // leaves its slot for it.
  request = Generate(5, 5, 4);
  request.session_id = "s";
  request.commit = false;
  EXPECT_TRUE(RunCall(&real, request)->status->ok());
}

INSTANTIATE_TEST_SUITE_P(Models, PagesTest, testing::Values(kModel, kHybrid), [](const auto& test) {
  return std::string(test.param).find("llama") != std::string::npos ? "transformer" : "hybrid";
});

}  // namespace
}  // namespace sluice
