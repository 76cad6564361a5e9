// The prefix cache in the engine, on the fake backend: what is computed, what is reused, who waits
// for whom. Tokens are always what the fake model's definition says.

#include "engine/prefix_cache.h"

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/fake_calls.h"

namespace sluice {
namespace {

using Tokens = std::vector<int32_t>;

constexpr int64_t kPlenty = 1 << 20;
constexpr int64_t kStateBytes = 16;  // of the fake engine's shape

EngineOptions WithCache(int64_t bytes, int64_t host_states = 1000) {
  EngineOptions options;
  options.prefix_cache_bytes = bytes;
  options.fingerprint = "model";
  options.session_limits.host_state_bytes = host_states * kStateBytes;
  return options;
}

class PrefixCacheTest : public testing::Test {
 protected:
  explicit PrefixCacheTest(int64_t bytes = kPlenty, int64_t host_states = 1000, int32_t slots = 8)
      : fake({}, slots, slots + 8, WithCache(bytes, host_states)) {}

  // `length` tokens that are `common` for as long as it says.
  Tokens Prompt(int64_t length, const Tokens& common = {}, int64_t shared = 0) {
    Tokens prompt = RandomPrompt(&rng, length);
    std::copy(common.begin(), common.begin() + shared, prompt.begin());
    return prompt;
  }
  Running Run(Request request) {
    Running running = Submit(&fake, std::move(request));
    fake.RunDry();
    ExpectAsDefined(running);
    return running;
  }
  // Prompt tokens that a call with this prompt reuses. It generates two.
  int64_t Reuses(const Tokens& prompt, const std::string& tenant = "") {
    Request request = MakeRequest(prompt, 2);
    request.tenant = tenant;
    const uint64_t before = computed();
    const Running running = Run(std::move(request));
    const Usage& usage = running.sink->finished[0].usage;
    EXPECT_EQ(usage.prompt_tokens, static_cast<int64_t>(prompt.size()));
    EXPECT_EQ(usage.reused_tokens + static_cast<int64_t>(computed() - before), usage.prompt_tokens);
    return usage.reused_tokens;
  }
  uint64_t computed() const { return stats().prompt_tokens.value(); }
  int64_t entries() const { return stats().prefix_entries.value(); }
  const EngineStats& stats() const { return fake.engine->stats(); }
  // Steps until the call has computed something and is not done.
  void StepInto(const Running& running) {
    const uint64_t before = computed();
    while (computed() == before) ASSERT_TRUE(fake.engine->Step());
    ASSERT_FALSE(running.sink->status.has_value());
  }

  FakeEngine fake;
  std::mt19937_64 rng{5};
};

TEST_F(PrefixCacheTest, AHitComputesWhatFollows) {
  const Tokens prompt = Prompt(50);
  EXPECT_EQ(Reuses(prompt), 0);
  EXPECT_EQ(Reuses(prompt), 48);
  EXPECT_EQ(Reuses(Prompt(60, prompt, 50)), 48);
  EXPECT_EQ(Reuses(Prompt(60, prompt, 47)), 32);
  EXPECT_EQ(stats().prefix_queries.value(), 50u + 50 + 60 + 60);
  EXPECT_EQ(stats().prefix_hits.value(), 48u + 48 + 32);
  EXPECT_EQ(stats().prefix_hit_calls.value(), 3u);
  EXPECT_EQ(stats().prefix_miss_calls.value(), 1u);
}

TEST_F(PrefixCacheTest, KeepsPowersOfTwoAndWherePromptsPart) {
  const Tokens prompt = Prompt(403);
  Reuses(prompt);
  EXPECT_EQ(entries(),
            4);  // 64, 128, 256 and 400 tokens: of grid 4, an eighth of the prompt or more
  EXPECT_EQ(Reuses(Prompt(300, prompt, 200)), 128);
  EXPECT_EQ(Reuses(Prompt(300, prompt, 201)), 200);
  EXPECT_EQ(Reuses(Prompt(300, prompt, 23)), 0);
  EXPECT_EQ(Reuses(Prompt(300, prompt, 23)), 20);
}

TEST_F(PrefixCacheTest, SomethingIsLeftToCompute) {
  for (int64_t length : {8, 9, 11, 12}) {
    const Tokens prompt = Prompt(length);
    EXPECT_EQ(Reuses(prompt), 0);
    EXPECT_EQ(Reuses(prompt), (length - 1) / 4 * 4) << length;
  }
}

TEST_F(PrefixCacheTest, APromptOfNoMoreThanAChunkCostsNothing) {
  for (int64_t length : {1, 3, 4}) {
    const Tokens prompt = Prompt(length);
    const int64_t steps = fake.backend.steps();
    EXPECT_EQ(Reuses(prompt), 0);
    EXPECT_EQ(fake.backend.steps() - steps, 2);  // one a token
    EXPECT_EQ(Reuses(prompt), 0);
  }
  EXPECT_EQ(stats().prefix_bytes.value(), 0);
  EXPECT_EQ(stats().prefix_queries.value(), 0u);
}

TEST_F(PrefixCacheTest, NoTenantSeesAnothersPrefixes) {
  const Tokens prompt = Prompt(50);
  EXPECT_EQ(Reuses(prompt, "a"), 0);
  EXPECT_EQ(Reuses(prompt, "b"), 0);
  EXPECT_EQ(Reuses(prompt, "a"), 48);
  // Nor does it wait for another's.
  Request request = MakeRequest(Prompt(60), 2);
  request.tenant = "a";
  Running first = Submit(&fake, request);
  request.tenant = "b";
  Running second = Submit(&fake, request);
  fake.RunDry();
  ExpectAsDefined(first);
  ExpectAsDefined(second);
  EXPECT_EQ(second.sink->finished[0].usage.reused_tokens, 0);
  EXPECT_EQ(stats().prefix_waits.value(), 0u);
}

TEST_F(PrefixCacheTest, BypassNeitherReadsNorWrites) {
  const Tokens prompt = Prompt(50);
  Request bypass = MakeRequest(prompt, 2);
  bypass.bypass_prefix_cache = true;
  Run(bypass);
  EXPECT_EQ(stats().prefix_bytes.value(), 0);
  EXPECT_EQ(Reuses(prompt), 0);
  const uint64_t before = computed();
  EXPECT_EQ(Run(bypass).sink->finished[0].usage.reused_tokens, 0);
  EXPECT_EQ(computed() - before, 50u);
}

TEST_F(PrefixCacheTest, PromptLogprobsWantEveryTokenComputed) {
  const Tokens prompt = Prompt(50);
  Request request = MakeRequest(prompt, 2);
  request.output.prompt_logprobs = 0;
  for (int i = 0; i < 2; ++i) {
    const Running running = Run(request);
    EXPECT_EQ(running.sink->finished[0].usage.reused_tokens, 0);
    ASSERT_EQ(running.sink->prompt_logprobs.size(), 49u);
    for (size_t t = 1; t < prompt.size(); ++t) {
      EXPECT_EQ(running.sink->prompt_logprobs[t - 1].logprob,
                FakeBackend::Logprob({prompt.begin(), prompt.begin() + t}, prompt[t]));
    }
  }
  EXPECT_EQ(Reuses(prompt), 48);  // but it may be kept
  Request score = request;
  score.kind = RequestKind::kScore;
  const Running running = Submit(&fake, score);
  fake.RunDry();
  EXPECT_EQ(running.sink->prompt_logprobs.size(), 49u);
}

TEST_F(PrefixCacheTest, AScoreLeavesNothing) {
  Request score = MakeRequest(Prompt(50), 0);
  score.kind = RequestKind::kScore;
  score.output.prompt_logprobs = 0;
  Submit(&fake, score);
  fake.RunDry();
  EXPECT_EQ(stats().prefix_bytes.value(), 0);
}

TEST_F(PrefixCacheTest, WhatIsReusedIsEchoed) {
  Request request = MakeRequest(Prompt(50), 5);
  request.stop.ignore_eos = true;
  Run(request);
  request.output.echo = true;
  Running running = Submit(&fake, request);
  fake.RunDry();
  EXPECT_EQ(running.sink->finished[0].usage.reused_tokens, 48);
  Tokens all = request.prompt;
  const Tokens generated = Expected(request, 0);
  all.insert(all.end(), generated.begin(), generated.end());
  EXPECT_EQ(running.sink->token_ids[0], all);
  EXPECT_EQ(running.sink->text[0], BundledTokenizer().Decode(all));
}

TEST_F(PrefixCacheTest, SeveralSequencesGoOnFromOneHit) {
  Request request = MakeRequest(Prompt(50), 9);
  request.n = 3;
  Run(request);
  const Running again = Run(request);
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(again.sink->finished[i].usage.reused_tokens, 48);
  }
}

TEST_F(PrefixCacheTest, ASessionsFirstCallIsAsAnyOther) {
  Sessions& sessions = fake.engine->sessions();
  const Tokens prompt = Prompt(50);
  Reuses(prompt);
  sessions.Create("", {.id = "s"}, [](absl::StatusOr<SessionInfo> info) {
    ASSERT_TRUE(info.ok()) << info.status();
  });
  Tokens history;
  for (int turn = 0; turn < 3; ++turn) {
    Request request = MakeRequest(prompt, 4);
    request.session_id = "s";
    request.stop.ignore_eos = true;
    Running running = Submit(&fake, request);
    fake.RunDry();
    ASSERT_TRUE(running.sink->status->ok()) << *running.sink->status;
    EXPECT_EQ(running.sink->finished[0].usage.reused_tokens, turn == 0 ? 48 : 0);
    history.insert(history.end(), prompt.begin(), prompt.end());
    for (int32_t token : running.sink->token_ids[0]) {
      EXPECT_EQ(token, FakeBackend::NextToken(history, kVocab, 1, 0, history.size()));
      history.push_back(token);
    }
  }
  // Only what began with nothing has looked, and what went on from a history has left nothing.
  EXPECT_EQ(stats().prefix_queries.value(), 100u);
  EXPECT_EQ(Reuses(prompt), 48);
}

// ---- Room ----

// Bytes that a prompt of `chunks` and a bit takes, with one state.
int64_t BytesOfOne(int64_t chunks) {
  FakeEngine fake({}, 8, 16, WithCache(kPlenty));
  Submit(&fake, MakeRequest(Tokens(chunks * 4 + 1, 7), 1));
  fake.RunDry();
  EXPECT_EQ(fake.engine->stats().prefix_entries.value(), 1);
  return fake.engine->stats().prefix_bytes.value();
}

class LittleCacheTest : public PrefixCacheTest {
 protected:
  LittleCacheTest() : PrefixCacheTest(3 * BytesOfOne(2)) {}
};

TEST_F(LittleCacheTest, TheLeastRecentlyUsedGoes) {
  std::vector<Tokens> prompts;
  for (int i = 0; i < 4; ++i) prompts.push_back(Prompt(9));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Reuses(prompts[i]), 0);
  EXPECT_EQ(Reuses(prompts[0]), 8);
  EXPECT_EQ(Reuses(prompts[3]), 0);
  EXPECT_EQ(stats().prefix_evictions.value(), 1u);
  EXPECT_EQ(Reuses(prompts[0]), 8);
  EXPECT_EQ(Reuses(prompts[2]), 8);
  EXPECT_EQ(Reuses(prompts[3]), 8);
  EXPECT_EQ(Reuses(prompts[1]), 0);
  EXPECT_EQ(entries(), 3);
}

TEST_F(LittleCacheTest, APromptTooLongForItLeavesTheOthersAlone) {
  const Tokens prompt = Prompt(9);
  EXPECT_EQ(Reuses(prompt), 0);
  const Tokens long_one = Prompt(200);
  EXPECT_EQ(Reuses(long_one), 0);
  EXPECT_EQ(Reuses(long_one), 0);
  EXPECT_EQ(Reuses(prompt), 8);
}

TEST_F(LittleCacheTest, NeverTakesMoreThanItMay) {
  const int64_t budget = 3 * BytesOfOne(2);
  const Tokens common = Prompt(40);
  for (int i = 0; i < 200; ++i) {
    const auto length = static_cast<int64_t>(1 + rng() % 20);
    Submit(&fake, MakeRequest(Prompt(length, common, static_cast<int64_t>(rng() % length)), 1));
    for (size_t steps = rng() % 4; steps > 0; --steps) {
      fake.engine->Step();
      EXPECT_LE(stats().prefix_bytes.value(), budget);
    }
  }
  fake.RunDry();
  EXPECT_GT(stats().prefix_evictions.value(), 10u);
}

class LittleHostTest : public PrefixCacheTest {
 protected:
  LittleHostTest() : PrefixCacheTest(kPlenty, /*host_states=*/3) {}
};

TEST_F(LittleHostTest, SessionsGetTheRoomTheyWant) {
  for (int i = 0; i < 5; ++i) Reuses(Prompt(9));
  EXPECT_EQ(entries(), 3);
  for (const char* id : {"a", "b", "c"}) {
    fake.engine->sessions().Create("", {.id = id}, [](absl::StatusOr<SessionInfo> info) {
      ASSERT_TRUE(info.ok()) << info.status();
    });
    Request request = MakeRequest({5, 6}, 3);
    request.session_id = id;
    Run(request);
  }
  EXPECT_EQ(stats().room_refusals.value(), 0u);
  EXPECT_EQ(entries(), 0);
  // Nothing can be kept now, and nobody minds.
  const Tokens prompt = Prompt(50);
  EXPECT_EQ(Reuses(prompt), 0);
  EXPECT_EQ(Reuses(prompt), 0);
  EXPECT_EQ(stats().prefix_bytes.value(), 0);
}

TEST(PrefixCacheEngine, ACopyOnItsWayIsNoReasonToRefuseASession) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    FakeEngine fake({.seed = seed}, 8, 16, WithCache(kPlenty, /*host_states=*/1));
    Running first = Submit(&fake, MakeRequest(Tokens(9, 7), 50));
    while (fake.engine->stats().prefix_entries.value() == 0) ASSERT_TRUE(fake.engine->Step());
    fake.engine->sessions().Create("", {.id = "a"}, [](absl::StatusOr<SessionInfo> info) {
      ASSERT_TRUE(info.ok()) << info.status();
    });
    Request request = MakeRequest({5, 6}, 3);
    request.session_id = "a";
    Running second = Submit(&fake, std::move(request));
    fake.RunDry();
    ExpectAsDefined(first);
    ExpectAsDefined(second);
  }
}

class NoCacheTest : public PrefixCacheTest {
 protected:
  NoCacheTest() : PrefixCacheTest(0) {}
};

TEST_F(NoCacheTest, NothingIsKept) {
  const Tokens prompt = Prompt(50);
  EXPECT_EQ(Reuses(prompt), 0);
  EXPECT_EQ(Reuses(prompt), 0);
  EXPECT_EQ(stats().prefix_queries.value(), 0u);
}

// ---- Calls that begin the same, at the same time ----

TEST_F(PrefixCacheTest, WhatSeveralBeginWithIsComputedOnce) {
  for (int64_t shared : {40, 42}) {
    const Tokens common = Prompt(shared);
    const uint64_t before = computed();
    std::vector<Running> calls;
    for (int i = 0; i < 6; ++i) {
      calls.push_back(Submit(&fake, MakeRequest(Prompt(shared + 7, common, shared), 5, i)));
    }
    fake.RunDry();
    for (const Running& call : calls) ExpectAsDefined(call);
    EXPECT_EQ(computed() - before, static_cast<uint64_t>(40 + 6 * (shared + 7 - 40)));
  }
  EXPECT_EQ(stats().prefix_waits.value(), 10u);
}

TEST_F(PrefixCacheTest, TheSamePromptAgainAndAgainIsComputedOnce) {
  const Tokens prompt = Prompt(50);
  std::vector<Running> calls;
  // More than there are slots.
  for (int i = 0; i < 20; ++i) calls.push_back(Submit(&fake, MakeRequest(prompt, 5, i)));
  fake.RunDry();
  for (const Running& call : calls) ExpectAsDefined(call);
  EXPECT_EQ(computed(), 48u + 20 * 2);
}

TEST_F(PrefixCacheTest, OneThatComesWhileItIsComputedWaitsToo) {
  const Tokens common = Prompt(200);
  Running first = Submit(&fake, MakeRequest(common, 5));
  for (int i = 0; i < 4; ++i) fake.engine->Step();
  ASSERT_LT(computed(), 90u);
  Running second = Submit(&fake, MakeRequest(Prompt(120, common, 101), 5));
  fake.engine->Step();
  EXPECT_EQ(stats().waiting.value(), 1);
  fake.RunDry();
  ExpectAsDefined(first);
  ExpectAsDefined(second);
  EXPECT_EQ(second.sink->finished[0].usage.reused_tokens, 100);
  // One that comes too late for that has what was kept.
  EXPECT_EQ(Reuses(Prompt(180, common, 150)), 128);
}

TEST_F(PrefixCacheTest, OthersDoNotWaitWithThem) {
  const Tokens common = Prompt(400);
  Running first = Submit(&fake, MakeRequest(common, 5));
  Running second = Submit(&fake, MakeRequest(common, 5));
  Running other = Submit(&fake, MakeRequest({5, 6, 7}, 1));
  while (!first.sink->status.has_value()) ASSERT_TRUE(fake.engine->Step());
  EXPECT_EQ(stats().prefix_waits.value(), 1u);
  EXPECT_TRUE(other.sink->status.has_value());
  fake.RunDry();
  ExpectAsDefined(second);
}

TEST_F(PrefixCacheTest, OneThatWaitsTakesOverFromOneThatIsCancelled) {
  const Tokens common = Prompt(300);
  Running leader = Submit(&fake, MakeRequest(common, 5));
  std::vector<Running> others;
  for (int i = 0; i < 3; ++i) {
    others.push_back(Submit(&fake, MakeRequest(Prompt(290, common, 280), 5, i)));
  }
  StepInto(leader);
  EXPECT_EQ(stats().waiting.value(), 3);
  fake.engine->Cancel(leader.id, absl::CancelledError());
  fake.engine->Step();
  EXPECT_EQ(stats().waiting.value(), 2);
  const uint64_t before = computed();
  fake.RunDry();
  for (const Running& call : others) ExpectAsDefined(call);
  EXPECT_LE(computed() - before, 280u + 3 * 10 + 16);
}

TEST_F(PrefixCacheTest, OneThatWaitsTakesOverFromOneWhoseTimeIsOver) {
  Request request = MakeRequest(Prompt(300), 5);
  Request hasty = request;
  hasty.deadline = fake.clock.Now() + absl::Milliseconds(10);
  Running leader = Submit(&fake, hasty);
  Running other = Submit(&fake, request);
  StepInto(leader);
  fake.clock.Advance(absl::Milliseconds(10));
  fake.RunDry();
  EXPECT_TRUE(absl::IsDeadlineExceeded(*leader.sink->status));
  ExpectAsDefined(other);
}

TEST_F(PrefixCacheTest, NobodyWaitsForASlowReader) {
  Request request = MakeRequest(Prompt(300), 5);
  Request echoing = request;
  echoing.output.echo = true;
  Running leader = Submit(&fake, echoing);
  Running other = Submit(&fake, request);
  StepInto(leader);
  leader.sink->room = 0;
  fake.RunDry();
  ExpectAsDefined(other);
  EXPECT_FALSE(leader.sink->status.has_value());
  leader.sink->room = 1 << 20;
  fake.RunDry();
  EXPECT_TRUE(leader.sink->status->ok());
}

TEST_F(PrefixCacheTest, ACallThatWaitsCanBeCancelledAndHasItsDeadline) {
  Request request = MakeRequest(Prompt(300), 5);
  Running leader = Submit(&fake, request);
  Running cancelled = Submit(&fake, request);
  request.deadline = fake.clock.Now() + absl::Milliseconds(10);
  Running hasty = Submit(&fake, request);
  StepInto(leader);
  EXPECT_EQ(stats().waiting.value(), 2);
  EXPECT_LE(fake.engine->NextDeadline(), request.deadline);
  fake.engine->Cancel(cancelled.id, absl::CancelledError());
  EXPECT_TRUE(absl::IsCancelled(*cancelled.sink->status));
  fake.clock.Advance(absl::Milliseconds(10));
  fake.engine->Step();
  EXPECT_TRUE(absl::IsDeadlineExceeded(*hasty.sink->status));
  EXPECT_EQ(stats().cancelled[static_cast<size_t>(Stage::kQueued)].value(), 1u);
  EXPECT_EQ(stats().deadline_exceeded[static_cast<size_t>(Stage::kQueued)].value(), 1u);
  EXPECT_EQ(stats().waiting.value(), 0);
  fake.RunDry();
  ExpectAsDefined(leader);
  EXPECT_EQ(computed(), 300u);
}

TEST_F(PrefixCacheTest, ADeviceFaultClosesThoseThatWait) {
  const Tokens prompt = Prompt(300);
  std::vector<Running> calls;
  for (int i = 0; i < 4; ++i) calls.push_back(Submit(&fake, MakeRequest(prompt, 5, i)));
  fake.backend.FailAfterSteps(3);
  fake.RunDry();
  for (const Running& call : calls) EXPECT_TRUE(absl::IsUnavailable(*call.sink->status));
  EXPECT_EQ(fake.engine->live_requests(), 0);
}

// Random calls that begin alike, with little room, cancels, slow readers and few slots.
TEST(PrefixCacheEngine, AHitChangesNothing) {
  uint64_t hits = 0, waits = 0, evictions = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    const auto slots = static_cast<int32_t>(2 + rng() % 5);
    FakeEngine fake(
        {.grid = 4, .steps_in_flight = 1 + static_cast<int32_t>(rng() % 3), .seed = seed}, slots,
        slots + 4 + static_cast<int32_t>(rng() % 20),
        WithCache(rng() % 3 == 0 ? kPlenty : static_cast<int64_t>(rng() % 40000),
                  static_cast<int64_t>(2 + rng() % 30)));
    const Tokens common = RandomPrompt(&rng, 120);
    std::vector<Running> calls;
    std::vector<RequestId> cancelled;
    for (int round = 0; round < 150; ++round) {
      if (rng() % 4 == 0) {
        Tokens prompt = RandomPrompt(&rng, 1 + rng() % 20);
        prompt.insert(prompt.begin(), common.begin(), common.begin() + rng() % 120);
        Request request = MakeRequest(std::move(prompt), rng() % 12, rng());
        request.n = 1 + static_cast<int32_t>(rng() % 2);
        request.tenant = rng() % 4 == 0 ? "b" : "a";
        request.bypass_prefix_cache = rng() % 8 == 0;
        if (rng() % 8 == 0) request.output.prompt_logprobs = 0;
        calls.push_back(Submit(&fake, std::move(request)));
      }
      if (!calls.empty() && rng() % 10 == 0) {
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
      if (std::count(cancelled.begin(), cancelled.end(), call.id) == 0) {
        ExpectAsDefined(call);
      } else {
        EXPECT_TRUE(absl::IsCancelled(*call.sink->status));
      }
    }
    const EngineStats& stats = fake.engine->stats();
    EXPECT_EQ(stats.slots_used.value(), 0);
    EXPECT_EQ(stats.waiting.value(), 0);
    hits += stats.prefix_hit_calls.value();
    waits += stats.prefix_waits.value();
    evictions += stats.prefix_evictions.value();
  }
  EXPECT_GT(hits, 500u);
  EXPECT_GT(waits, 100u);
  EXPECT_GT(evictions, 100u);
}

}  // namespace
}  // namespace sluice
