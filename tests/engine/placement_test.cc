#include "engine/placement.h"

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_calls.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/recording_sink.h"

namespace sluice {
namespace {

using testing::ElementsAre;

struct PlacementParts {
  explicit PlacementParts(int32_t slot_count, int64_t prefix_bytes = 0)
      : slots(slot_count), count_tables(slot_count) {
    SLUICE_CHECK(backend.AllocateStates(FakeSpec(), slot_count, slot_count, 16).ok());
    copies = std::make_unique<HostCopies>(&backend, MakeStateTable(FakeSpec()));
    states = std::make_unique<StateCache>(copies.get(), &backend, &slots, &clock,
                                          StateBudget{int64_t{1} << 20, 0, false}, &stats);
    prefixes = std::make_unique<PrefixCache>(states.get(), 4, prefix_bytes, "n", &stats);
    const DevicePlaces places{&backend, copies.get(), states.get(), &slots, &count_tables};
    readers = std::make_unique<SlowReaders>(places, &clock, absl::Seconds(1), &stats);
    placement = std::make_unique<Placement>(places, &BundledTokenizer(), &clock, prefixes.get(),
                                            readers.get(), &stats, [this](RequestId id) {
                                              const auto it = calls.find(id);
                                              return it == calls.end() ? nullptr : it->second.get();
                                            });
  }
  ~PlacementParts() {
    for (auto& [id, call] : calls) {
      if (call->state != CallState::kClosed) placement->Leave(call.get());
    }
  }
  Call* Queue(Request request) {
    auto call = std::make_unique<Call>();
    call->id = calls.size() + 1;
    call->request = std::move(request);
    call->sink = std::make_shared<RecordingSink>();
    Call* queued = call.get();
    calls.emplace(call->id, std::move(call));
    placement->Queue(queued);
    return queued;
  }
  void Leave(Call* call) {
    placement->Leave(call);
    call->state = CallState::kClosed;
  }

  FakeClock clock;
  FakeBackend backend{{}};
  SlotPool slots;
  SlotPool count_tables;
  EngineStats stats;
  std::map<RequestId, std::unique_ptr<Call>> calls;
  std::unique_ptr<HostCopies> copies;
  std::unique_ptr<StateCache> states;
  std::unique_ptr<PrefixCache> prefixes;
  std::unique_ptr<SlowReaders> readers;
  std::unique_ptr<Placement> placement;
};

TEST(PlacementTest, SlotsGoToWhoeverIsNext) {
  PlacementParts parts(2);
  Call* first = parts.Queue(MakeRequest({5}, 1));
  Call* second = parts.Queue(MakeRequest({6}, 1));
  Call* third = parts.Queue(MakeRequest({7}, 1));
  parts.placement->PlaceWaiting(parts.clock.Now());
  EXPECT_THAT(parts.placement->admitted(), ElementsAre(first, second));
  EXPECT_EQ(third->state, CallState::kQueued);
  EXPECT_EQ(parts.placement->waiting(), 1);
  parts.Leave(first);
  parts.placement->PlaceWaiting(parts.clock.Now());
  EXPECT_THAT(parts.placement->admitted(), ElementsAre(second, third));
  EXPECT_EQ(parts.slots.free(), 0);
}

TEST(PlacementTest, ACallOfManySequencesWaitsForAllItsSlots) {
  PlacementParts parts(3);
  Call* one = parts.Queue(MakeRequest({5}, 1));
  Request wide = MakeRequest({6}, 1);
  wide.n = 3;
  wide.sampling.presence_penalty = 1.0f;
  Call* three = parts.Queue(std::move(wide));
  parts.Queue(MakeRequest({7}, 1));
  parts.placement->PlaceWaiting(parts.clock.Now());
  EXPECT_EQ(parts.placement->waiting(), 2) << "nobody overtakes it";
  parts.Leave(one);
  parts.placement->PlaceWaiting(parts.clock.Now());
  EXPECT_THAT(parts.placement->admitted(), ElementsAre(three));
  EXPECT_EQ(parts.count_tables.free(), 0);
  parts.Leave(three);
  EXPECT_EQ(parts.count_tables.free(), 3);
}

TEST(PlacementTest, ACallFollowsTheOneThatComputesItsPrefix) {
  PlacementParts parts(4, int64_t{1} << 16);
  std::vector<int32_t> prompt(40, 9);
  Call* leader = parts.Queue(MakeRequest(prompt, 1));
  parts.placement->PlaceWaiting(parts.clock.Now());
  prompt.push_back(10);
  Call* follower = parts.Queue(MakeRequest(prompt, 1));
  parts.placement->PlaceWaiting(parts.clock.Now());
  EXPECT_EQ(follower->state, CallState::kFollowing);
  EXPECT_EQ(follower->leader, leader->id);
  EXPECT_EQ(parts.stats.prefix_waits.value(), 1u);
  parts.Leave(leader);
  parts.placement->PlaceWaiting(parts.clock.Now());
  EXPECT_EQ(follower->state, CallState::kReady) << "it computes it itself";
}

}  // namespace
}  // namespace sluice
