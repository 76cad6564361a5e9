// Promises of time between tokens, on a device whose steps take 1 ms, 0.1 ms more for each decode
// row and 10 us for each prompt token.
#include "engine/step_pacer.h"

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/fake_calls.h"

namespace sluice {
namespace {

constexpr int32_t kSlots = 64;

absl::Duration TimeOf(const StepRows& rows) {
  int64_t prompt_tokens = 0;
  for (int32_t i = 0; i < rows.num_prompts; ++i) prompt_tokens += rows.prompts[i].length;
  return absl::Microseconds(1000 + 100 * rows.num_decode + 10 * prompt_tokens);
}

class StepPacerTest : public testing::Test {
 protected:
  StepPacerTest() : fake_({.grid = 4, .steps_in_flight = 1}, kSlots, 256) {
    fake_.backend.set_before_await([this] {
      const absl::Duration time = TimeOf(fake_.backend.step());
      fake_.clock.Advance(time);
      steps_.push_back(time);
    });
  }

  Running Start(const char* tenant, absl::Duration inter_token, int64_t prompt_tokens,
                int32_t new_tokens, int32_t n = 1) {
    Request request = MakeRequest(RandomPrompt(&rng_, prompt_tokens), new_tokens, rng_());
    request.tenant = tenant;
    request.inter_token = inter_token;
    request.stop.ignore_eos = true;
    request.n = n;
    started_.push_back(Submit(&fake_, std::move(request)));
    return started_.back();
  }
  void TearDown() override {
    for (const Running& call : started_) fake_.engine->Cancel(call.id, absl::CancelledError());
    fake_.RunDry();
  }
  Running Light(int32_t new_tokens, absl::Duration inter_token = absl::Microseconds(1450)) {
    return Start("light", inter_token, 4, new_tokens);
  }
  // Steps until the call has that many tokens of its first sequence.
  void StepUntil(const Running& call, size_t tokens) {
    while (call.sink->token_ids[0].size() < tokens) ASSERT_TRUE(fake_.engine->Step());
  }
  // The p-th quantile of the times of the steps since `begin`.
  absl::Duration Quantile(size_t begin, double p) {
    std::vector<absl::Duration> times(steps_.begin() + static_cast<ptrdiff_t>(begin), steps_.end());
    std::sort(times.begin(), times.end());
    return times[static_cast<size_t>(p * static_cast<double>(times.size() - 1))];
  }

  std::mt19937_64 rng_{7};
  FakeEngine fake_;
  std::vector<absl::Duration> steps_;
  std::vector<Running> started_;
};

TEST_F(StepPacerTest, WithoutAPromiseEverybodyIsInEveryStep) {
  std::vector<Running> calls;
  for (int i = 0; i < 40; ++i) calls.push_back(Start("flood", absl::InfiniteDuration(), 4, 50));
  fake_.RunDry();
  for (const Running& call : calls) ExpectAsDefined(call);
  EXPECT_EQ(fake_.engine->stats().held_rows.value(), 0u);
  EXPECT_EQ(fake_.engine->stats().steps.value(), 50u);
}

TEST_F(StepPacerTest, AFloodGetsWhatAStepHasRoomFor) {
  std::vector<Running> flood;
  for (int i = 0; i < 1500; ++i) flood.push_back(Start("flood", absl::InfiniteDuration(), 4, 20));
  for (int i = 0; i < 5; ++i) fake_.engine->Step();
  const Running light = Light(6000);
  StepUntil(light, 500);
  const size_t begin = steps_.size();
  StepUntil(light, 5500);
  EXPECT_LE(Quantile(begin, 0.99), absl::Microseconds(1450));
  EXPECT_GE(Quantile(begin, 0.5), absl::Microseconds(1300)) << "three rows of others fit";
  EXPECT_LE(Quantile(begin, 1), StepPacer::kWide * absl::Microseconds(1450));
  // A thirty-second of the time for wide steps, at most.
  absl::Duration total;
  for (size_t i = begin; i < steps_.size(); ++i) total += steps_[i];
  EXPECT_LE(total / (steps_.size() - begin), absl::Microseconds(1450) * 33 / 32);
  fake_.RunDry();
  ExpectAsDefined(light);
  for (const Running& call : flood) ExpectAsDefined(call);
  EXPECT_GT(fake_.engine->stats().held_rows.value(), 0u);
}

TEST_F(StepPacerTest, RowsThatWaitHaveTheirTurns) {
  std::vector<Running> others;
  for (int i = 0; i < 20; ++i) {
    others.push_back(Start("flood", absl::InfiniteDuration(), 4, 100000, 1 + i % 2));
  }
  for (int i = 0; i < 50; ++i) fake_.engine->Step();
  const Running light = Light(100000);
  StepUntil(light, 1000);
  size_t least = SIZE_MAX, most = 0;
  for (const Running& call : others) {
    for (int32_t i = 0; i < call.request.n; ++i) {
      least = std::min(least, call.sink->token_ids[i].size());
      most = std::max(most, call.sink->token_ids[i].size());
    }
  }
  EXPECT_GE(least, 100u);
  EXPECT_LE(most - least, 2u);
}

TEST_F(StepPacerTest, APromiseThatCannotBeKeptLeavesOthersAShare) {
  std::vector<Running> others;
  for (int i = 0; i < 8; ++i) others.push_back(Start("b", absl::InfiniteDuration(), 4, 100000));
  for (int i = 0; i < 50; ++i) fake_.engine->Step();
  const size_t before = others[0].sink->token_ids[0].size();
  const Running light = Light(100000, absl::Microseconds(1));
  const Running prompt = Start("b", absl::InfiniteDuration(), 200, 1);
  StepUntil(light, 8 * StepPacer::kWideEvery);
  EXPECT_GE(others[0].sink->token_ids[0].size(), before + 6);
  EXPECT_LE(others[0].sink->token_ids[0].size(), before + 10);
  EXPECT_TRUE(prompt.sink->status.has_value()) << "its prompt was computed, and its token";
}

TEST_F(StepPacerTest, AShortPromptOfOthersNeedNotWaitForAWideStepWhereThereIsRoom) {
  const Running light = Light(100000, absl::Milliseconds(5));
  StepUntil(light, 10);
  for (int i = 0; i < 20; ++i) {
    const Running other = Start("b", absl::InfiniteDuration(), 40, 1);
    const size_t begin = steps_.size();
    while (!other.sink->status.has_value()) ASSERT_TRUE(fake_.engine->Step());
    EXPECT_LE(steps_.size() - begin, 2u);
  }
}

TEST_F(StepPacerTest, ThePromisedShareAmongThemselves) {
  std::vector<Running> calls;
  for (int i = 0; i < 40; ++i) {
    calls.push_back(Start(i % 2 ? "a" : "b", absl::Milliseconds(1 + i % 2), 4, 50));
  }
  fake_.RunDry();
  for (const Running& call : calls) ExpectAsDefined(call);
  EXPECT_EQ(fake_.engine->stats().steps.value(), 50u) << "all were in every step";
}

TEST_F(StepPacerTest, ACallWhoseReaderIsSlowHoldsNobodyBack) {
  std::vector<Running> others;
  for (int i = 0; i < 8; ++i) others.push_back(Start("b", absl::InfiniteDuration(), 4, 100000));
  const Running light = Light(100000);
  StepUntil(light, 100);
  light.sink->room = 0;
  fake_.engine->Step();
  const uint64_t held = fake_.engine->stats().held_rows.value();
  for (int i = 0; i < 100; ++i) fake_.engine->Step();
  EXPECT_EQ(fake_.engine->stats().held_rows.value(), held);
}

}  // namespace
}  // namespace sluice
