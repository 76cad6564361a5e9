#include "engine/sessions/session_endings.h"

#include <optional>

#include "gtest/gtest.h"
#include "tests/fakes/session_parts.h"

namespace sluice {
namespace {

struct Everybody {
  explicit Everybody(Session* session) {
    session->on_read.push_back(Tell(&read));
    session->on_checked.push_back(Tell(&checked));
    session->on_deleted.push_back(Tell(&deleted));
    session->changes.push_back({"", [](SessionContent*) {}, Tell(&changed)});
    auto use = std::make_shared<SessionUse>();
    use->session = session;
    use->ready = Tell(&turn);
    session->waiting.push_back(use);
  }
  std::optional<absl::Status> read, checked, deleted, changed, turn;
};

TEST(SessionEndingsTest, WhoeverWaitsForOneThatWasDeletedIsTold) {
  SessionParts parts(WithStore());
  Session* session = parts.Stored("a");
  auto writer = std::make_shared<SessionUse>();
  writer->session = session;
  parts.table->SetWriter(session, writer);
  Everybody all(session);
  parts.endings->Remove(session, absl::OkStatus());
  EXPECT_EQ(parts.table->Find({"t", "a"}), nullptr);
  EXPECT_TRUE(all.deleted->ok());
  for (const auto* told : {&all.read, &all.checked, &all.changed, &all.turn}) {
    EXPECT_TRUE(absl::IsNotFound(**told));
  }
  EXPECT_TRUE(writer->outdated) << "what it computed is nobody's any more";
  EXPECT_EQ(writer->session, nullptr);
}

TEST(SessionEndingsTest, ALostRaceEndsWhatWasToBeWrittenAndReadsAgain) {
  SessionParts parts(WithStore());
  Session* session = parts.Stored("a");
  Everybody all(session);
  parts.endings->LoseRace(session);
  EXPECT_EQ(session->phase, SessionPhase::kUnread);
  EXPECT_TRUE(session->queued);
  EXPECT_TRUE(IsLostRace(*all.changed));
  EXPECT_TRUE(IsLostRace(*all.deleted));
  EXPECT_FALSE(all.read.has_value() || all.turn.has_value()) << "the newest serves them";
  EXPECT_EQ(parts.stats.lost_races.value(), 1u);
  SessionEndings::TakeAll(session);
}

TEST(SessionEndingsTest, OneThatIsDamagedStaysToBeDeleted) {
  SessionParts parts(WithStore());
  Session* session = parts.Stored("a");
  Everybody all(session);
  parts.endings->Lose(session, absl::DataLossError("torn"));
  for (const auto* told : {&all.read, &all.checked, &all.changed, &all.turn, &all.deleted}) {
    EXPECT_TRUE(absl::IsDataLoss(**told));
  }
  EXPECT_EQ(parts.table->Find({"t", "a"}), session);
  EXPECT_TRUE(session->lost);
  EXPECT_EQ(session->now.state, nullptr);
  parts.endings->Lose(session, absl::DataLossError("torn"));
  EXPECT_EQ(parts.stats.store_errors.value(), 1u) << "it is one error, however often it is met";
}

}  // namespace
}  // namespace sluice
