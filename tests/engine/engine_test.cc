#include "engine/engine.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/fake_calls.h"

namespace sluice {
namespace {

TEST(EngineTest, GeneratesWhatTheModelSays) {
  FakeEngine fake;
  Running running = Submit(&fake, MakeRequest({5, 6, 7, 8, 9}, 20));
  fake.RunDry();
  ExpectAsDefined(running);
  EXPECT_EQ(running.sink->finished[0].reason, FinishReason::kMaxTokens);
  EXPECT_EQ(running.sink->finished[0].usage.prompt_tokens, 5);
  const auto* started = std::get_if<StartedEvent>(&running.sink->events.front());
  ASSERT_NE(started, nullptr);
  EXPECT_EQ(started->prompt_tokens, 5);
}

// Random requests of all kinds at random moments, with cancels, slow readers and more calls than
// slots: whoever is not cancelled gets exactly what the model says, and nothing is left behind.
TEST(EngineTest, ACallsTokensDependOnTheCallAlone) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    FakeEngine fake(
        {.grid = 4, .steps_in_flight = 1 + static_cast<int32_t>(rng() % 3), .seed = seed});
    std::vector<Running> calls;
    std::vector<RequestId> cancelled;
    for (int round = 0; round < 120; ++round) {
      if (rng() % 4 == 0) {
        Request request = MakeRequest(RandomPrompt(&rng, 1 + rng() % 40), rng() % 30, rng());
        request.n = 1 + rng() % 3;
        request.priority = static_cast<int32_t>(rng() % 3);
        if (rng() % 6 == 0) request.inter_token = absl::Milliseconds(rng() % 600);
        request.stop.min_new_tokens = static_cast<int32_t>(rng() % 4);
        // Half of the vocabulary stops such a call early.
        if (rng() % 4 == 0) {
          for (int32_t id = 0; id < kVocab; id += 16) request.stop.token_ids.push_back(id);
        }
        calls.push_back(Submit(&fake, std::move(request)));
      }
      if (!calls.empty() && rng() % 16 == 0) {
        const Running& call = calls[rng() % calls.size()];
        if (!call.sink->status.has_value()) cancelled.push_back(call.id);
        fake.engine->Cancel(call.id, absl::CancelledError());
      }
      if (!calls.empty() && rng() % 8 == 0) {
        Running& call = calls[rng() % calls.size()];
        call.sink->room = call.sink->room == 0 ? 1 << 20 : 0;
      }
      fake.engine->Step();
      fake.clock.Advance(absl::Milliseconds(rng() % 400));
    }
    for (Running& call : calls) call.sink->room = 1 << 20;
    fake.RunDry();
    ASSERT_EQ(fake.engine->live_requests(), 0);
    for (const Running& call : calls) {
      if (std::find(cancelled.begin(), cancelled.end(), call.id) == cancelled.end()) {
        ExpectAsDefined(call);
      } else {
        EXPECT_TRUE(absl::IsCancelled(*call.sink->status));
      }
    }
    EXPECT_EQ(fake.engine->stats().slots_used.value(), 0);
    EXPECT_EQ(fake.engine->stats().waiting.value(), 0);
    EXPECT_EQ(fake.engine->stats().running.value(), 0);
    EXPECT_EQ(fake.engine->stats().orphan_rows.value(), 0u);
    EXPECT_LE(fake.backend.most_rows(), 16);
  }
}

TEST(EngineTest, ACancelledRowIsInNoLaterStep) {
  FakeEngine fake({.steps_in_flight = 1});
  Running a = Submit(&fake, MakeRequest({5}, 100));
  Running b = Submit(&fake, MakeRequest({6}, 100));
  for (int i = 0; i < 5; ++i) fake.engine->Step();
  const size_t seen = a.sink->token_ids[0].size();
  fake.engine->Cancel(a.id, absl::CancelledError());
  EXPECT_TRUE(absl::IsCancelled(*a.sink->status));
  fake.RunDry();
  EXPECT_EQ(a.sink->token_ids[0].size(), seen);
  ExpectAsDefined(b);
  EXPECT_EQ(fake.engine->stats().cancelled[static_cast<size_t>(Stage::kDecode)].value(), 1u);
}

TEST(EngineTest, RowsInFlightOfACallThatEndsAreCountedAsDiscarded) {
  FakeEngine fake({.steps_in_flight = 2});
  const Running call = Submit(&fake, MakeRequest({5}, 100));
  for (int i = 0; i < 5; ++i) fake.engine->Step();  // one step is in flight
  fake.engine->Cancel(call.id, absl::CancelledError());
  fake.RunDry();
  EXPECT_EQ(fake.engine->stats().discarded_rows.value(), 1u);
  EXPECT_EQ(fake.engine->stats().orphan_rows.value(), 0u);
}

TEST(EngineTest, WhatRequestsAskForAndGetIsCounted) {
  FakeEngine fake({.steps_in_flight = 1});
  Request request = MakeRequest({5, 6, 7}, 4);
  request.n = 2;
  Submit(&fake, request);
  Submit(&fake, MakeRequest({5}, 9));
  fake.RunDry();
  const EngineStats& stats = fake.engine->stats();
  EXPECT_EQ(stats.prompt_length.sum(), 3 + 1);
  EXPECT_EQ(stats.max_new_tokens.sum(), 4 + 9);
  EXPECT_EQ(stats.sequences.sum(), 2 + 1);
  EXPECT_EQ(stats.new_tokens.sum(), 2 * 4 + 9);
  EXPECT_EQ(stats.new_tokens.count(2), 2u);  // above 2, up to 5
  EXPECT_EQ(stats.new_tokens.count(3), 1u);
  EXPECT_FALSE(stats.decode_seconds.empty() || stats.compute_seconds.empty());
}

TEST(EngineTest, ASlowReaderGivesItsSlotsUpAndGoesOnWhereItWas) {
  FakeEngine fake({.steps_in_flight = 2}, /*slots=*/2);
  Request forked = MakeRequest({5, 6, 7}, 40);
  forked.n = 2;
  Running slow = Submit(&fake, forked);
  for (int i = 0; i < 6; ++i) fake.engine->Step();
  slow.sink->room = 0;
  fake.RunDry();
  EXPECT_EQ(fake.engine->stats().paused.value(), 2);
  Running other = Submit(&fake, MakeRequest({9}, 10));
  EXPECT_FALSE(fake.engine->Step());  // its patience lasts
  EXPECT_LE(fake.engine->NextDeadline() - fake.clock.Now(), absl::Seconds(1));
  fake.clock.Advance(absl::Seconds(2));
  fake.RunDry();
  ExpectAsDefined(other);
  EXPECT_EQ(fake.engine->stats().spills.value(), 1u);
  slow.sink->room = 1 << 20;
  fake.RunDry();
  ExpectAsDefined(slow);
}

TEST(EngineTest, TablesOfCountsAreWaitedForToo) {
  FakeEngine fake({}, /*slots=*/2);
  Request request = MakeRequest({5, 6, 7}, 40);
  request.sampling.repetition_penalty = 1.5f;
  request.n = 2;
  Running slow = Submit(&fake, request);
  for (int i = 0; i < 6; ++i) fake.engine->Step();
  slow.sink->room = 0;
  // It gives its slots up, but what it has counted is nowhere else.
  Running other = Submit(&fake, MakeRequest({9}, 10));
  fake.RunDry();
  fake.clock.Advance(absl::Seconds(2));
  fake.RunDry();
  ExpectAsDefined(other);
  Running counting = Submit(&fake, request);
  fake.RunDry();
  EXPECT_FALSE(counting.sink->status.has_value());
  slow.sink->room = 1 << 20;
  fake.RunDry();
  ExpectAsDefined(slow);
  ExpectAsDefined(counting);
}

TEST(EngineTest, DeadlinesEndCallsInTheQueueInThePromptAndInDecode) {
  FakeEngine fake({}, /*slots=*/1);
  Request running = MakeRequest({5}, 1000000);
  running.deadline = absl::Seconds(5);
  running.stop.ignore_eos = true;
  Running first = Submit(&fake, running);
  Request queued = MakeRequest({6}, 4);
  queued.deadline = absl::Seconds(1);
  Running second = Submit(&fake, queued);
  Request limited = MakeRequest({7}, 1000000);
  limited.stop.time_limit = absl::Seconds(8);
  limited.stop.ignore_eos = true;
  Running third = Submit(&fake, limited);
  for (int i = 0; i < 100; ++i) {
    fake.engine->Step();
    fake.clock.Advance(absl::Milliseconds(100));
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(*first.sink->status));
  EXPECT_GT(first.sink->token_ids[0].size(), 10u);
  EXPECT_TRUE(absl::IsDeadlineExceeded(*second.sink->status));
  EXPECT_TRUE(second.sink->token_ids.empty());
  EXPECT_TRUE(third.sink->status->ok());
  EXPECT_EQ(third.sink->finished[0].reason, FinishReason::kTimeLimit);
  EXPECT_EQ(fake.engine->live_requests(), 0);
}

TEST(EngineTest, TimeLimitBeforeThePromptIsDoneIsAnError) {
  FakeEngine fake;
  Request request = MakeRequest(std::vector<int32_t>(1000, 5), 4);
  request.stop.time_limit = absl::Seconds(1);
  Running running = Submit(&fake, request);
  fake.engine->Step();
  fake.clock.Advance(absl::Seconds(1));
  fake.engine->Step();
  EXPECT_TRUE(absl::IsDeadlineExceeded(*running.sink->status));
}

TEST(EngineTest, ADeviceFaultClosesEveryCallOnce) {
  FakeEngine fake;
  fake.backend.FailAfterSteps(4);
  std::vector<Running> calls;
  for (int i = 0; i < 12; ++i) calls.push_back(Submit(&fake, MakeRequest({5, 6}, 50, i)));
  fake.RunDry();
  EXPECT_FALSE(fake.engine->device_status().ok());
  for (const Running& call : calls) EXPECT_TRUE(absl::IsUnavailable(*call.sink->status));
  EXPECT_EQ(fake.engine->live_requests(), 0);
  Running late = Submit(&fake, MakeRequest({5}, 5));
  EXPECT_TRUE(absl::IsUnavailable(*late.sink->status));
  EXPECT_FALSE(fake.engine->Step());
}

TEST(EngineTest, ANumericFaultEndsItsSequenceAlone) {
  FakeEngine fake;
  fake.backend.set_poison_token(13);
  Running bad = Submit(&fake, MakeRequest({5, 13}, 10));
  Running good = Submit(&fake, MakeRequest({5, 6}, 10));
  Request scored = MakeRequest({5, 13, 6}, 0);
  scored.kind = RequestKind::kScore;
  scored.output.prompt_logprobs = 0;
  Running score = Submit(&fake, scored);
  fake.RunDry();
  EXPECT_EQ(bad.sink->finished[0].reason, FinishReason::kError);
  EXPECT_TRUE(absl::IsInternal(bad.sink->finished[0].status));
  EXPECT_TRUE(bad.sink->status->ok());
  ExpectAsDefined(good);
  EXPECT_TRUE(absl::IsInternal(*score.sink->status));
}

// The backend's buffers hold no more (it checks).
TEST(EngineTest, AStepHasALogitRowForEachRowAndSlotAtMost) {
  FakeEngine fake({}, 8, 16);
  Request request = MakeRequest(std::vector<int32_t>(16, 5), 3);
  request.n = 8;
  request.output.prompt_logprobs = 0;
  Running call = Submit(&fake, request);
  fake.RunDry();
  ExpectAsDefined(call);
}

TEST(EngineTest, ScoresEveryTokenButTheFirst) {
  FakeEngine fake;
  std::mt19937_64 rng(3);
  const std::vector<int32_t> tokens = RandomPrompt(&rng, 50);
  Request request;
  request.kind = RequestKind::kScore;
  request.prompt = tokens;
  request.output.prompt_logprobs = 2;
  request.score_alternatives = 2;
  Running running = Submit(&fake, request);
  fake.RunDry();
  ASSERT_TRUE(running.sink->status->ok());
  ASSERT_EQ(running.sink->prompt_logprobs.size(), tokens.size() - 1);
  double total = 0;
  for (size_t i = 1; i < tokens.size(); ++i) {
    const TokenLogprob& got = running.sink->prompt_logprobs[i - 1];
    EXPECT_EQ(got.token, tokens[i]);
    EXPECT_EQ(got.logprob, FakeBackend::Logprob({tokens.begin(), tokens.begin() + i}, tokens[i]));
    EXPECT_EQ(got.alternatives.size(), 2u);
    total += got.logprob;
  }
  ASSERT_TRUE(running.sink->summary.has_value());
  EXPECT_EQ(running.sink->summary->tokens, 50);
  EXPECT_EQ(running.sink->summary->scored_tokens, 49);
  EXPECT_DOUBLE_EQ(running.sink->summary->total_logprob, total);
  EXPECT_EQ(running.sink->summary->next.size(), 2u);
  EXPECT_TRUE(running.sink->token_ids.empty());
}

TEST(EngineTest, AScoreOfOneTokenSaysWhatMayFollow) {
  for (const int32_t alternatives : {3, 0}) {
    FakeEngine fake;
    Request request;
    request.kind = RequestKind::kScore;
    request.prompt = {5};
    request.output.prompt_logprobs = alternatives;
    request.score_alternatives = alternatives;
    Running running = Submit(&fake, request);
    fake.RunDry();
    ASSERT_TRUE(running.sink->status.has_value());
    ASSERT_TRUE(running.sink->status->ok()) << *running.sink->status;
    EXPECT_TRUE(running.sink->prompt_logprobs.empty());
    ASSERT_TRUE(running.sink->summary.has_value());
    EXPECT_EQ(running.sink->summary->tokens, 1);
    EXPECT_EQ(running.sink->summary->scored_tokens, 0);
    EXPECT_EQ(running.sink->summary->next.size(), static_cast<size_t>(alternatives));
  }
}

TEST(EngineTest, EchoAndTextAreTheTokenizersOwn) {
  FakeEngine fake;
  const Tokenizer& tokenizer = BundledTokenizer();
  Request request = MakeRequest(tokenizer.Encode("It was a dark and stormy night; the", {}), 30, 9);
  request.output.echo = true;
  request.stop.ignore_eos = true;
  Running running = Submit(&fake, request);
  fake.RunDry();
  std::vector<int32_t> all = request.prompt;
  const std::vector<int32_t> generated = Expected(request, 0);
  all.insert(all.end(), generated.begin(), generated.end());
  EXPECT_EQ(running.sink->token_ids[0], all);
  EXPECT_EQ(running.sink->text[0], tokenizer.Decode(all));
}

TEST(EngineTest, TextAfterBosAloneIsABeginning) {
  FakeEngine fake;
  Request request = MakeRequest({1}, 20, 5);
  request.stop.ignore_eos = true;
  Running running = Submit(&fake, request);
  fake.RunDry();
  EXPECT_EQ(running.sink->text[0], BundledTokenizer().Decode(Expected(request, 0)));
}

TEST(EngineTest, StopStringsEndTheTextBeforeThem) {
  FakeEngine fake;
  Request request = MakeRequest({5, 6}, 200, 11);
  request.stop.ignore_eos = true;
  Running whole = Submit(&fake, request);
  fake.RunDry();
  const std::string text = whole.sink->text[0];
  ASSERT_GT(text.size(), 100u);
  // A stop string from the middle of the text, on a character's boundary.
  size_t at = 60;
  while ((static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) ++at;
  const std::string stop = text.substr(at, text.find(' ', at + 2) - at);
  for (bool include : {false, true}) {
    Request stopped = request;
    stopped.stop.strings = {"never to be seen", stop};
    stopped.stop.include_stop = include;
    Running running = Submit(&fake, stopped);
    fake.RunDry();
    const size_t first = text.find(stop);
    EXPECT_EQ(running.sink->text[0], text.substr(0, first + (include ? stop.size() : 0)));
    EXPECT_EQ(running.sink->finished[0].reason, FinishReason::kStopString);
    EXPECT_EQ(running.sink->finished[0].matched_stop, stop);
  }
}

TEST(EngineTest, NoTokensAskedForTakesThePromptIn) {
  FakeEngine fake;
  Running running = Submit(&fake, MakeRequest({5, 6, 7}, 0));
  fake.RunDry();
  EXPECT_TRUE(running.sink->status->ok());
  EXPECT_EQ(running.sink->finished[0].reason, FinishReason::kMaxTokens);
  EXPECT_EQ(running.sink->finished[0].usage.new_tokens, 0);
  EXPECT_TRUE(running.sink->token_ids[0].empty());
}

}  // namespace
}  // namespace sluice
