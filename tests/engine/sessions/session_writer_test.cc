#include "engine/sessions/session_writer.h"

#include <optional>

#include "gtest/gtest.h"
#include "tests/fakes/session_parts.h"

namespace sluice {
namespace {

struct WriterParts : SessionParts {
  explicit WriterParts(SessionsSetup with = WithStore())
      : SessionParts(std::move(with)),
        writer(context, table.get(), queue.get(), expiry.get(), owners.get(), endings.get()) {}
  PendingChange Labelled(const std::string& label, std::optional<absl::Status>* told,
                         const std::string& etag = "") {
    return {etag,
            [label](SessionContent* content) {
              content->labels["l"] = label;
              content->etag = "e-" + label;
            },
            Tell(told)};
  }
  std::unique_ptr<StoreJob> Put(Session* session) {
    auto job = writer.MakeJob(session);
    SLUICE_CHECK(job != nullptr && job->kind == StoreJob::Kind::kPutRecord);
    queue->Return(*job);
    return job;
  }

  SessionWriter writer;
};

TEST(SessionWriterTest, AChangeCountsOnceItIsOnDisk) {
  WriterParts parts;
  Session* session = parts.Stored("a");
  std::optional<absl::Status> told;
  parts.writer.Change(session, parts.Labelled("x", &told));
  auto job = parts.Put(session);
  EXPECT_EQ(job->record.labels.at("l"), "x");
  EXPECT_EQ(job->record.generation, 2u);
  EXPECT_TRUE(session->now.labels.empty());
  EXPECT_FALSE(told.has_value());
  parts.writer.PutDone(session, job.get());
  EXPECT_TRUE(told->ok());
  EXPECT_EQ(session->now.labels.at("l"), "x");
  EXPECT_EQ(session->generation, 2u);
  EXPECT_EQ(session->version, session->stored_version);
  EXPECT_EQ(parts.writer.MakeJob(session), nullptr) << "there is nothing left to write";
}

TEST(SessionWriterTest, AnEtagThatIsOldByThenIsRefused) {
  WriterParts parts;
  Session* session = parts.Stored("a");
  std::optional<absl::Status> first, second;
  parts.writer.Change(session, parts.Labelled("x", &first, "e0"));
  parts.writer.Change(session, parts.Labelled("y", &second, "e0"));
  auto job = parts.Put(session);
  parts.writer.PutDone(session, job.get());
  EXPECT_TRUE(first->ok());
  EXPECT_EQ(parts.writer.MakeJob(session), nullptr);
  EXPECT_TRUE(absl::IsAborted(*second));
}

TEST(SessionWriterTest, ACommitBetweenKeepsBoth) {
  WriterParts parts;
  Session* session = parts.Stored("a");
  std::optional<absl::Status> told;
  parts.writer.Change(session, parts.Labelled("x", &told));
  auto job = parts.Put(session);
  session->now.state = parts.InMemory(9);
  session->now.etag = "committed";
  ++session->version;
  parts.writer.PutDone(session, job.get());
  EXPECT_EQ(session->now.labels.at("l"), "x");
  EXPECT_EQ(session->now.state->info.position, 9);
  EXPECT_NE(session->now.etag, "e-x") << "that is the etag of what the disk has";
  auto next = parts.Put(session);
  EXPECT_EQ(next->record.info.position, 9);
  EXPECT_NE(next->data, nullptr);
}

TEST(SessionWriterTest, WhatFailsIsTriedAgainEverLater) {
  WriterParts parts;
  Session* session = parts.Stored("a");
  session->now.state = parts.InMemory(9);
  ++session->version;
  absl::Duration last = absl::ZeroDuration();
  for (int i = 0; i < 9; ++i) {
    auto job = parts.Put(session);
    job->status = absl::UnavailableError("the disk is away");
    parts.writer.PutDone(session, job.get());
    EXPECT_EQ(parts.writer.MakeJob(session), nullptr);
    const absl::Duration pause = parts.queue->NextDeadline() - parts.clock.Now();
    EXPECT_GE(pause, last);
    last = pause;
    parts.clock.Advance(pause);
    parts.queue->WakeUntil(parts.clock.Now());
  }
  EXPECT_EQ(last, absl::Minutes(1));
  EXPECT_EQ(parts.stats.store_errors.value(), 9u);
}

TEST(SessionWriterTest, WhoeverWasFirstWins) {
  WriterParts parts;
  Session* session = parts.Stored("a");
  std::optional<absl::Status> told;
  parts.writer.Change(session, parts.Labelled("x", &told));
  auto job = parts.Put(session);
  job->status = absl::AbortedError("generation 5 is there");
  parts.writer.PutDone(session, job.get());
  EXPECT_TRUE(IsLostRace(*told));
  EXPECT_EQ(session->phase, SessionPhase::kUnread);
  EXPECT_TRUE(session->now.labels.empty());
}

TEST(SessionWriterTest, ANewOneThatCannotBeWrittenIsNot) {
  WriterParts parts;
  Session* session = parts.Live("new");
  session->phase = SessionPhase::kCreating;
  std::optional<absl::Status> told;
  parts.writer.Change(session, parts.Labelled("x", &told));
  auto job = parts.Put(session);
  job->status = absl::ResourceExhaustedError("the disk is full");
  parts.writer.PutDone(session, job.get());
  EXPECT_TRUE(absl::IsResourceExhausted(*told));
  EXPECT_EQ(parts.table->Find({"t", "new"}), nullptr);
}

TEST(SessionWriterTest, AForkSharesItsParentsFile) {
  WriterParts parts;
  Session* parent = parts.Stored("parent");
  Session* fork = parts.Live("fork");
  fork->phase = SessionPhase::kCreating;
  fork->now.state = parent->now.state;
  std::optional<absl::Status> told;
  parts.writer.Change(fork, parts.Labelled("x", &told));
  auto job = parts.writer.MakeJob(fork);
  ASSERT_NE(job, nullptr);
  EXPECT_EQ(job->source.id, "parent");
  EXPECT_EQ(job->source.state_id, "file-parent");
  EXPECT_EQ(job->data, nullptr);
  EXPECT_TRUE(parent->job_out) << "nobody takes the file away meanwhile";
  EXPECT_EQ(parts.queue->Return(*job).size(), 2u);
  parts.writer.PutDone(fork, job.get());
  EXPECT_EQ(fork->phase, SessionPhase::kLive);
  EXPECT_EQ(fork->stored_state->holders.size(), 2u);
}

}  // namespace
}  // namespace sluice
