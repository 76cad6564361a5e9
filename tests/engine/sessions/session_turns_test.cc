#include "engine/sessions/session_turns.h"

#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/session_parts.h"

namespace sluice {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

struct TurnsParts : SessionParts {
  explicit TurnsParts(SessionsSetup with = {}, int64_t host_states = 100)
      : SessionParts(std::move(with), host_states),
        reader(context, table.get(), queue.get(), expiry.get(), owners.get(), endings.get()),
        writer(context, table.get(), queue.get(), expiry.get(), owners.get(), endings.get()),
        fetcher(context, table.get(), queue.get(), endings.get()),
        turns(context, table.get(), queue.get(), expiry.get(), owners.get(), &reader, &fetcher,
              &writer) {
    turns.set_cancel_call([this](uint64_t call, absl::Status) { cancelled.push_back(call); });
    reader.set_on_live([this](Session* session) { turns.StartNext(session); });
  }
  std::shared_ptr<SessionUse> Acquire(const std::string& id, uint64_t call,
                                      OnConflict on_conflict = OnConflict::kFail,
                                      bool writes = true) {
    auto use = std::make_shared<SessionUse>();
    use->call = call;
    use->writes = writes;
    use->on_conflict = on_conflict;
    use->ready = [this, call](absl::Status status) { told[call] = std::move(status); };
    turns.Acquire("t", id, use);
    return use;
  }
  bool Has(uint64_t call) { return told.count(call) > 0 && told[call].ok(); }

  SessionReader reader;
  SessionWriter writer;
  StateFetcher fetcher;
  SessionTurns turns;
  std::map<uint64_t, absl::Status> told;
  std::vector<uint64_t> cancelled;
};

TEST(SessionTurnsTest, OneWritesAndTheOthersHaveTheirTurns) {
  TurnsParts parts;
  parts.Live("a");
  const auto first = parts.Acquire("a", 1);
  EXPECT_TRUE(parts.Has(1));
  parts.Acquire("a", 2);
  EXPECT_TRUE(absl::IsAborted(parts.told[2])) << "it did not want to wait";
  const auto third = parts.Acquire("a", 3, OnConflict::kWait);
  const auto fourth = parts.Acquire("a", 4, OnConflict::kWait);
  EXPECT_EQ(parts.told.count(3), 0u);
  parts.turns.Release(third);
  parts.turns.Release(first);
  EXPECT_EQ(parts.told.count(3), 0u) << "it has left the queue";
  EXPECT_TRUE(parts.Has(4));
  parts.turns.Release(fourth);
  EXPECT_EQ(parts.table->busy(), 0);
}

TEST(SessionTurnsTest, OneMayTakeOverUnlessTheOtherIsCommitting) {
  TurnsParts parts;
  parts.Live("a");
  const auto first = parts.Acquire("a", 1);
  const auto second = parts.Acquire("a", 2, OnConflict::kCancelRunning);
  EXPECT_THAT(parts.cancelled, ElementsAre(1));
  parts.turns.Release(first);
  EXPECT_TRUE(parts.Has(2));
  second->committing = true;
  const auto third = parts.Acquire("a", 3, OnConflict::kCancelRunning);
  EXPECT_THAT(parts.cancelled, ElementsAre(1));
  parts.turns.Release(second);
  EXPECT_TRUE(parts.Has(3));
  parts.turns.Release(third);
}

TEST(SessionTurnsTest, ACommitIsTheSessionsNextState) {
  TurnsParts parts;
  Session* session = parts.Live("a");
  const auto use = parts.Acquire("a", 1);
  StateInfo info;
  info.position = 5;
  std::optional<absl::StatusOr<SessionInfo>> committed;
  parts.turns.Commit(use, info, -1, std::make_shared<StateData>(parts.copies->table().bytes()), "r",
                     false, [&](absl::StatusOr<SessionInfo> out) { committed = std::move(out); });
  ASSERT_TRUE(committed.has_value() && committed->ok());
  EXPECT_EQ((*committed)->position, 5);
  EXPECT_FALSE((*committed)->busy);
  EXPECT_EQ(session->now.last_request_id, "r");
  EXPECT_NE(session->now.etag, "e0");
  parts.turns.Release(use);
}

TEST(SessionTurnsTest, WhatAnotherDaemonWroteMeanwhileIsNotWrittenOver) {
  TurnsParts parts(WithStore());
  parts.Stored("a")->now.state.reset();
  const auto use = parts.Acquire("a", 1);
  ASSERT_TRUE(parts.Has(1));
  use->outdated = true;
  std::optional<absl::StatusOr<SessionInfo>> committed;
  parts.turns.Commit(use, {}, -1, std::make_shared<StateData>(parts.copies->table().bytes()), "r",
                     false, [&](absl::StatusOr<SessionInfo> out) { committed = std::move(out); });
  EXPECT_TRUE(IsLostRace(committed->status()));
  parts.turns.Release(use);
}

TEST(SessionTurnsTest, ACallWithoutRoomTakesThePlaceOfTheStateItReplaces) {
  TurnsParts parts({}, /*host_states=*/1);
  Session* session = parts.Live("a");
  session->now.state = parts.InMemory(3);
  const auto use = parts.Acquire("a", 1);
  ASSERT_TRUE(parts.Has(1));
  EXPECT_TRUE(use->in_place);
  EXPECT_TRUE(absl::IsResourceExhausted(parts.turns.KeepState(session)))
      << "a fork would need room for both";
  parts.Live("b");
  parts.Acquire("b", 2);
  EXPECT_TRUE(absl::IsResourceExhausted(parts.told[2]));
  EXPECT_EQ(parts.stats.room_refusals.value(), 2u);
  parts.turns.Release(use);
}

TEST(SessionTurnsTest, ReadersTakeNoTurn) {
  TurnsParts parts;
  parts.Live("a");
  const auto writes = parts.Acquire("a", 1);
  const auto reads = parts.Acquire("a", 2, OnConflict::kFail, /*writes=*/false);
  EXPECT_TRUE(parts.Has(2));
  parts.turns.Release(reads);
  EXPECT_EQ(parts.table->busy(), 1);
  parts.turns.Release(writes);
  EXPECT_THAT(parts.cancelled, IsEmpty());
}

}  // namespace
}  // namespace sluice
