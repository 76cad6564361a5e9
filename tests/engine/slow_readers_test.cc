#include "engine/slow_readers.h"

#include "gtest/gtest.h"
#include "tests/fakes/fake_calls.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/recording_sink.h"

namespace sluice {
namespace {

class SlowReadersTest : public testing::Test {
 protected:
  SlowReadersTest() {
    SLUICE_CHECK(backend.AllocateStates(FakeSpec(), 2, 2, 16).ok());
    for (size_t i = 0; i < 2; ++i) {
      owned[i].request = MakeRequest({5}, 1);
      sinks[i] = std::make_shared<RecordingSink>();
      owned[i].sink = sinks[i];
      owned[i].state = CallState::kReady;
      owned[i].sequences.resize(1);
      owned[i].open_sequences = 1;
      owned[i].sequences[0].slot = slots.Take();
      calls.push_back(&owned[i]);
    }
  }
  // The reader of call i reads, or does not.
  void Reads(size_t i, bool reads) {
    sinks[i]->room = reads ? 100 : 0;
    readers.PollReaders(calls, clock.Now());
  }

  FakeClock clock;
  FakeBackend backend{{}};
  SlotPool slots{2};
  SlotPool count_tables{2};
  EngineStats stats;
  HostCopies copies{&backend, MakeStateTable(FakeSpec())};
  StateCache states{&copies, &backend, &slots, &clock, StateBudget{1024, 0, false}, &stats};
  const SlowReaders readers{DevicePlaces{&backend, &copies, &states, &slots, &count_tables}, &clock,
                            absl::Seconds(1), &stats};
  Call owned[2];
  std::shared_ptr<RecordingSink> sinks[2];
  std::vector<Call*> calls;
};

TEST_F(SlowReadersTest, ACallKeepsItsSlotsForAWhile) {
  Reads(0, false);
  EXPECT_EQ(owned[0].state, CallState::kPaused);
  EXPECT_EQ(readers.NextDeadline(calls), absl::Seconds(1));
  EXPECT_FALSE(readers.SpillOne(calls, clock.Now()));
  Reads(0, true);
  EXPECT_EQ(owned[0].state, CallState::kReady);
  EXPECT_EQ(readers.NextDeadline(calls), absl::InfiniteDuration());
}

TEST_F(SlowReadersTest, WhoeverHasWaitedLongestGivesItsSlotUp) {
  Reads(1, false);
  clock.Advance(absl::Seconds(1));
  Reads(0, false);
  clock.Advance(absl::Seconds(2));
  EXPECT_TRUE(readers.SpillOne(calls, clock.Now()));
  EXPECT_EQ(owned[1].state, CallState::kSpilled);
  EXPECT_EQ(owned[0].state, CallState::kPaused);
  EXPECT_EQ(slots.free(), 1);
  EXPECT_EQ(stats.spills.value(), 1u);
}

TEST_F(SlowReadersTest, OneThatIsReadAgainComesBackWithItsState) {
  Reads(0, false);
  clock.Advance(absl::Seconds(2));
  ASSERT_TRUE(readers.SpillOne(calls, clock.Now()));
  EXPECT_TRUE(readers.ReturnSpilled(calls)) << "nobody wants to";
  EXPECT_EQ(owned[0].state, CallState::kSpilled);
  Reads(0, true);
  while (copies.AwaitOne()) {
  }
  EXPECT_TRUE(readers.ReturnSpilled(calls));
  EXPECT_EQ(owned[0].state, CallState::kLoading);
  EXPECT_GE(owned[0].sequences[0].slot, 0);
  const absl::StatusOr<bool> waited = readers.AwaitCopies(calls);
  EXPECT_TRUE(waited.ok() && *waited);
  while (copies.AwaitOne()) {
  }
  readers.PollLoads(calls);
  EXPECT_EQ(owned[0].state, CallState::kReady);
  EXPECT_EQ(owned[0].sequences[0].host, nullptr);
}

}  // namespace
}  // namespace sluice
