#include "engine/sessions/session_owners.h"

#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/session_parts.h"

namespace sluice {
namespace {

using testing::ElementsAre;
using testing::Pair;

std::shared_ptr<SessionUse> Waiting(Session* session, OnConflict on_conflict,
                                    std::optional<absl::Status>* told, absl::Duration since) {
  auto use = std::make_shared<SessionUse>();
  use->writes = true;
  use->on_conflict = on_conflict;
  use->session = session;
  use->since = since;
  use->ready = Tell(told);
  session->waiting.push_back(use);
  return use;
}

TEST(SessionOwnersTest, AloneADaemonNeedNotLook) {
  SessionParts parts(WithStore());
  Session* session = parts.Stored("a");
  EXPECT_FALSE(parts.owners->MustLook(*session));
  EXPECT_TRUE(parts.owners->MayStart(*session));
}

TEST(SessionOwnersTest, OnlyTheOwnerStartsAndNotWhenItYields) {
  SessionParts parts(WithStore(/*shared=*/true));
  Session* session = parts.Stored("a");
  EXPECT_TRUE(parts.owners->MustLook(*session));
  EXPECT_FALSE(parts.owners->MayStart(*session));
  parts.owners->SetOwned(session, true);
  EXPECT_FALSE(parts.owners->MustLook(*session));
  EXPECT_TRUE(parts.owners->MayStart(*session));

  std::vector<std::unique_ptr<StoreJob>> jobs;
  parts.owners->AddRequests(parts.clock.Now(), &jobs);
  EXPECT_TRUE(jobs.empty()) << "the others are asked now and then, not at once";
  parts.clock.Advance(absl::Seconds(1));
  parts.owners->AddRequests(parts.clock.Now(), &jobs);
  ASSERT_EQ(jobs.size(), 1u);
  jobs[0]->wishes = {SessionWish::kCancel};
  EXPECT_THAT(parts.owners->RequestsDone(*jobs[0]),
              ElementsAre(Pair(session->key, SessionWish::kCancel)));
  EXPECT_FALSE(parts.owners->MayStart(*session));
  parts.owners->SetOwned(session, false);
  EXPECT_FALSE(session->yields);
  EXPECT_GT(session->look_at, parts.clock.Now()) << "the other one is to get it first";
}

TEST(SessionOwnersTest, PatienceEndsForThoseWhoHaveLittle) {
  SessionParts parts(WithStore(/*shared=*/true));
  Session* session = parts.Stored("a");
  std::optional<absl::Status> hasty, patient, reader;
  const auto use = Waiting(session, OnConflict::kFail, &hasty, parts.clock.Now());
  Waiting(session, OnConflict::kWait, &patient, parts.clock.Now());
  session->for_written.push_back(
      {SessionWish::kNone, parts.clock.Now() + absl::Seconds(2), Tell(&reader)});
  EXPECT_EQ(SessionOwners::WishOf(*session), SessionWish::kTurn);

  parts.owners->HeldElsewhere(session, SessionHolder::kCall);
  EXPECT_FALSE(hasty.has_value());
  const absl::Duration first = session->look_pause;
  EXPECT_GT(first, absl::ZeroDuration());
  parts.clock.Advance(absl::Seconds(1));
  parts.owners->HeldElsewhere(session, SessionHolder::kCall);
  ASSERT_TRUE(hasty.has_value());
  EXPECT_TRUE(absl::IsAborted(*hasty));
  EXPECT_EQ(use->session, nullptr);
  EXPECT_FALSE(patient.has_value() || reader.has_value());
  EXPECT_GT(session->look_pause, first) << "looks come ever more slowly";
  parts.clock.Advance(absl::Seconds(2));
  parts.owners->HeldElsewhere(session, SessionHolder::kUnwritten);
  EXPECT_TRUE(absl::IsUnavailable(*reader));
  EXPECT_FALSE(patient.has_value());
}

TEST(SessionOwnersTest, WhatIsGoneIsGivenBack) {
  SessionParts parts(WithStore(/*shared=*/true));
  Session* session = parts.Stored("a");
  parts.owners->SetOwned(session, true);
  parts.endings->Remove(session, absl::OkStatus());
  EXPECT_TRUE(parts.owners->outstanding());
  std::vector<std::unique_ptr<StoreJob>> jobs;
  parts.owners->AddReleases(&jobs);
  ASSERT_EQ(jobs.size(), 1u);
  EXPECT_EQ(jobs[0]->kind, StoreJob::Kind::kRelease);
  EXPECT_EQ(jobs[0]->record.id, "a");
  EXPECT_FALSE(parts.owners->outstanding());
}

}  // namespace
}  // namespace sluice
