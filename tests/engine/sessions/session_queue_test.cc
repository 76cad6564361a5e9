#include "engine/sessions/session_queue.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/session_parts.h"

namespace sluice {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(SessionQueueTest, ASessionStandsInItOnce) {
  SessionParts parts(WithStore());
  Session* a = parts.Live("a");
  Session* b = parts.Live("b");
  parts.queue->Enqueue(b);
  parts.queue->Enqueue(a);
  parts.queue->Enqueue(b);
  EXPECT_THAT(parts.queue->Take(), ElementsAre(b->key, a->key));
  EXPECT_TRUE(parts.queue->empty());
}

TEST(SessionQueueTest, WhatFailedComesBackInItsTime) {
  SessionParts parts(WithStore());
  Session* a = parts.Live("a");
  Session* gone = parts.Live("gone");
  parts.queue->EnqueueAt(a, absl::Seconds(2));
  parts.queue->EnqueueAt(gone, absl::Seconds(1));
  parts.table->Take(gone);
  EXPECT_EQ(parts.queue->NextDeadline(), absl::Seconds(1));
  parts.queue->WakeUntil(absl::Seconds(1));
  EXPECT_TRUE(parts.queue->empty());
  EXPECT_TRUE(a->backing_off);
  parts.queue->WakeUntil(absl::Seconds(2));
  EXPECT_FALSE(a->backing_off);
  EXPECT_THAT(parts.queue->Take(), ElementsAre(a->key));
  EXPECT_EQ(parts.queue->NextDeadline(), absl::InfiniteDuration());
}

TEST(SessionQueueTest, AJobHoldsItsSessionAndThoseThatLendIt) {
  SessionParts parts(WithStore());
  Session* fork = parts.Live("fork");
  Session* parent = parts.Stored("parent");
  auto job = parts.queue->NewJob(StoreJob::Kind::kPutRecord, fork);
  parts.queue->Lend(parent, *job);
  EXPECT_TRUE(fork->job_out && parent->job_out);
  EXPECT_EQ(job->record.id, "fork");
  EXPECT_EQ(parts.queue->out(), 1u);
  EXPECT_THAT(parts.queue->Return(*job), ElementsAre(fork->key, parent->key));
  EXPECT_FALSE(fork->job_out || parent->job_out);
  EXPECT_EQ(parts.queue->out(), 0u);
}

TEST(SessionQueueTest, WhatNobodyAskedForIsReadOneAtATime) {
  SessionParts parts(WithStore());
  Session* live = parts.Live("live");
  Session* a = parts.table->Insert({"t", "a"}, SessionPhase::kUnread, true);
  Session* b = parts.table->Insert({"t", "b"}, SessionPhase::kUnread, true);
  for (Session* session : {live, a, b}) parts.queue->EnqueueIdle(session);
  auto first = parts.queue->IdleJob();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->record.id, "a") << "what is known already is passed over";
  EXPECT_EQ(parts.queue->IdleJob(), nullptr);
  EXPECT_EQ(parts.queue->idle_out(), 1u);
  parts.queue->Return(*first);
  parts.queue->DropIdle();
  EXPECT_EQ(parts.queue->IdleJob(), nullptr);
}

}  // namespace
}  // namespace sluice
