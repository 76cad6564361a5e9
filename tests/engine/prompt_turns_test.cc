// Tests how prompts share the steps' room, counted in steps of the fake device.
#include "engine/prompt_turns.h"

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/fake_calls.h"

namespace sluice {
namespace {

constexpr int64_t kGrid = 4;

// ---- The division alone ----

TEST(PromptShareTest, CutsOnlyOnTheGrid) {
  EXPECT_EQ(PromptShare(10, 100, 64), 10);  // the whole prompt, grid or not
  EXPECT_EQ(PromptShare(100, 100, 64), 100);
  EXPECT_EQ(PromptShare(101, 100, 64), 64);
  EXPECT_EQ(PromptShare(1000, 200, 64), 192);
  EXPECT_EQ(PromptShare(1000, 63, 64), 0);
  EXPECT_EQ(PromptShare(1, 0, 64), 0);
}

class PromptTurnsTest : public testing::Test {
 protected:
  Call* Add(int64_t tokens, const std::string& tenant = "", int32_t weight = 1,
            absl::Duration inter_token = absl::InfiniteDuration()) {
    calls_.push_back(std::make_unique<Call>());
    Call* call = calls_.back().get();
    call->state = CallState::kReady;
    call->request.tenant = tenant;
    call->request.tenant_weight = weight;
    call->request.inter_token = inter_token;
    call->request.prompt.assign(static_cast<size_t>(tokens), 5);
    return call;
  }
  // Tokens of each call in the next step, in the order of their adding.
  std::vector<int64_t> Step(int64_t room, int64_t others = 1 << 20) {
    std::vector<Call*> calls;
    for (const auto& call : calls_) calls.push_back(call.get());
    std::map<const Call*, int64_t> lengths;
    const Call* last = nullptr;
    for (const PromptTurns::Turn& turn : turns_.Divide(calls, {room, others})) {
      lengths[turn.call] = turn.length;
      turn.call->prompt_launched += turn.length;
      EXPECT_TRUE(!turn.call->in_prompt() || turn.length % kGrid == 0) << "cut off the grid";
      EXPECT_TRUE(last == nullptr || Index(last) < Index(turn.call)) << "not by age";
      last = turn.call;
    }
    std::vector<int64_t> out;
    int64_t sum = 0;
    for (const Call* call : calls) sum += out.emplace_back(lengths[call]);
    EXPECT_LE(sum, room);
    return out;
  }
  size_t Index(const Call* call) const {
    const auto is = [&](const auto& one) { return one.get() == call; };
    return std::find_if(calls_.begin(), calls_.end(), is) - calls_.begin();
  }

  std::vector<std::unique_ptr<Call>> calls_;
  PromptTurns turns_{kGrid};
};

using Lengths = std::vector<int64_t>;

TEST_F(PromptTurnsTest, OneHasItAll) {
  Add(103);
  EXPECT_EQ(Step(50), Lengths({48}));
  EXPECT_EQ(Step(50), Lengths({48}));
  EXPECT_EQ(Step(50), Lengths({7}));
  EXPECT_EQ(Step(50), Lengths({0}));
}

TEST_F(PromptTurnsTest, EqualOnesGoOneAfterAnother) {
  for (int i = 0; i < 3; ++i) Add(32);
  EXPECT_EQ(Step(24), Lengths({24, 0, 0}));
  EXPECT_EQ(Step(24), Lengths({8, 16, 0}));
  EXPECT_EQ(Step(24), Lengths({0, 16, 8}));
  EXPECT_EQ(Step(24), Lengths({0, 0, 24}));
}

TEST_F(PromptTurnsTest, AShortOneNeedNotWaitForALongOne) {
  for (int i = 0; i < 12; ++i) Add(60000);
  EXPECT_EQ(Step(16)[0], 16);
  Add(6);
  const Lengths step = Step(16);
  EXPECT_EQ(step[12], 6);
  EXPECT_EQ(step[0], 8) << "and the rest is too little for a chunk";
}

TEST_F(PromptTurnsTest, TheOldestHasHalfWhoeverComes) {
  const Call* old = Add(4000);
  for (int step = 0; step < 200; ++step) {
    Add(6);
    Add(6);
    Add(6);
    Step(16);
  }
  EXPECT_NEAR(static_cast<double>(old->prompt_launched), 200 * 8, 200);
  // The two take turns if there is room for one chunk only.
  const int64_t before = old->prompt_launched;
  int64_t all = 0;
  for (int step = 0; step < 200; ++step) {
    for (const int64_t tokens : Step(5)) all += tokens;
  }
  EXPECT_NEAR(static_cast<double>(old->prompt_launched - before), static_cast<double>(all) / 2, 8);
}

TEST_F(PromptTurnsTest, TenantsShareByWeight) {
  const Call* a = Add(40000, "a");
  const Call* b = Add(40000, "b", 3);
  for (int i = 0; i < 20; ++i) Add(40000, "a");
  for (int step = 0; step < 100; ++step) Step(17);
  EXPECT_NEAR(static_cast<double>(a->prompt_launched), 400, kGrid);
  EXPECT_NEAR(static_cast<double>(b->prompt_launched), 1200, kGrid);
  const Call* c = Add(40000, "c");
  for (int step = 0; step < 100; ++step) Step(17);
  EXPECT_NEAR(static_cast<double>(c->prompt_launched), 320, 2 * kGrid)
      << "owes nothing, is owed nothing";
}

TEST_F(PromptTurnsTest, WhoWasPromisedATimeIsNotBoundedAsOthersAre) {
  Add(1000, "flood");
  Add(1000, "promised", 1, absl::Milliseconds(1));
  EXPECT_EQ(Step(32, 0), Lengths({0, 32}));
  EXPECT_EQ(Step(32, 7), Lengths({4, 28}));
  EXPECT_EQ(Step(3, 3), Lengths({0, 0}));
}

TEST_F(PromptTurnsTest, ReadersThatAreSlowAreLeftOut) {
  Add(100)->state = CallState::kPaused;
  Add(100);
  EXPECT_EQ(Step(8), Lengths({0, 8}));
}

// ---- Through the engine ----

// Steps from its submission until `request` has ended, beside 12 long prompts that have begun.
int64_t StepsBeside(RequestKind kind, bool same_tenant, Request request) {
  FakeEngine fake({.grid = kGrid, .steps_in_flight = 1}, 16, 64);
  std::mt19937_64 rng(3);
  std::vector<Running> streams;
  for (int i = 0; i < 12; ++i) {
    Request one = MakeRequest(RandomPrompt(&rng, 6000), 1, rng());
    one.kind = kind;
    one.tenant = same_tenant ? "" : "other";
    streams.push_back(Submit(&fake, std::move(one)));
  }
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(fake.engine->Step());
  const uint64_t before = fake.engine->stats().steps.value();
  const Running call = Submit(&fake, std::move(request));
  while (!call.sink->status.has_value()) EXPECT_TRUE(fake.engine->Step());
  const uint64_t after = fake.engine->stats().steps.value();
  fake.RunDry();
  ExpectAsDefined(call);
  for (const Running& stream : streams) {
    if (kind == RequestKind::kGenerate) ExpectAsDefined(stream);
    EXPECT_TRUE(stream.sink->status->ok());
  }
  return static_cast<int64_t>(after - before);
}

TEST(PromptTurnsEngineTest, AShortCallBesideLongPromptsCountsItsOwnStepsAlone) {
  std::mt19937_64 rng(4);
  for (const RequestKind kind : {RequestKind::kGenerate, RequestKind::kScore}) {
    for (const bool same_tenant : {true, false}) {
      Request request = MakeRequest(RandomPrompt(&rng, 10), 4);
      request.stop.ignore_eos = true;
      // One step for the prompt, whose last row gives the first token, and one for each that
      // follows.
      EXPECT_EQ(StepsBeside(kind, same_tenant, request), 4);
      // 30 of a step's 60 tokens are its own.
      request.prompt = RandomPrompt(&rng, 300);
      EXPECT_LE(StepsBeside(kind, same_tenant, request), 300 / 28 + 1 + 3);
    }
  }
}

}  // namespace
}  // namespace sluice
