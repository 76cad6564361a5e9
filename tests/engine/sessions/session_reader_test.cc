#include "engine/sessions/session_reader.h"

#include <optional>

#include "gtest/gtest.h"
#include "tests/fakes/session_parts.h"

namespace sluice {
namespace {

struct ReaderParts : SessionParts {
  explicit ReaderParts(SessionsSetup with)
      : SessionParts(std::move(with)),
        reader(context, table.get(), queue.get(), expiry.get(), owners.get(), endings.get()) {
    reader.set_on_live([this](Session*) { ++live; });
  }
  // The one job that the session wants, done so far as the store is concerned.
  std::unique_ptr<StoreJob> Job(Session* session) {
    auto job = reader.ReadJob(session);
    SLUICE_CHECK(job != nullptr);
    queue->Return(*job);
    return job;
  }

  SessionReader reader;
  int live = 0;
};

using MaybeFound = std::optional<absl::StatusOr<Session*>>;

SessionReader::Found Into(MaybeFound* out) {
  return [out](absl::StatusOr<Session*> found) { out->emplace(found); };
}

TEST(SessionReaderTest, WhatIsInMemoryIsFoundAtOnce) {
  ReaderParts parts(WithStore());
  Session* session = parts.Stored("a");
  MaybeFound found;
  parts.reader.Find("t", "a", Into(&found));
  ASSERT_TRUE(found.has_value() && found->ok());
  EXPECT_EQ(**found, session);
}

TEST(SessionReaderTest, ANameIsLookedUpInTheStore) {
  ReaderParts parts(WithStore());
  MaybeFound found;
  parts.reader.Find("t", "a", Into(&found));
  EXPECT_FALSE(found.has_value());
  Session* session = parts.table->Find({"t", "a"});
  auto job = parts.Job(session);
  job->record.fingerprint = "model";
  job->record.etag = "e7";
  job->record.generation = 7;
  parts.reader.ReadDone(session, job.get());
  ASSERT_TRUE(found.has_value() && found->ok());
  EXPECT_EQ((**found)->now.etag, "e7");
  EXPECT_EQ(parts.table->total(), 1);
  EXPECT_EQ(parts.live, 1);
}

TEST(SessionReaderTest, WhatTheStoreDoesNotHaveIsForgotten) {
  ReaderParts parts(WithStore());
  MaybeFound found;
  parts.reader.Find("t", "a", Into(&found));
  Session* session = parts.table->Find({"t", "a"});
  auto job = parts.Job(session);
  job->status = absl::NotFoundError("no such directory");
  parts.reader.ReadDone(session, job.get());
  EXPECT_EQ(found->status(), SessionTable::NotFound({"t", "a"}));
  EXPECT_EQ(parts.table->Find({"t", "a"}), nullptr);
}

TEST(SessionReaderTest, ATokenThatTheModelDoesNotHaveIsDamage) {
  ReaderParts parts(WithStore());
  MaybeFound found;
  parts.reader.Find("t", "a", Into(&found));
  Session* session = parts.table->Find({"t", "a"});
  auto job = parts.Job(session);
  job->record.fingerprint = "model";
  job->record.info.position = 1;
  job->record.info.last_token = 4096;
  parts.reader.ReadDone(session, job.get());
  EXPECT_TRUE(absl::IsDataLoss(found->status()));
  EXPECT_TRUE(session->lost);
}

TEST(SessionReaderTest, WhoeverWantsTheNewestWaitsForItsOwner) {
  ReaderParts parts(WithStore(/*shared=*/true));
  Session* session = parts.Stored("a");
  MaybeFound found;
  parts.reader.Find("t", "a", Into(&found));
  auto job = parts.Job(session);
  job->unchanged = true;
  job->record.fingerprint = "model";
  job->holder = SessionHolder::kUnwritten;
  parts.reader.ReadDone(session, job.get());
  EXPECT_FALSE(found.has_value()) << "another daemon has something newer to write";
  parts.clock.Advance(absl::Seconds(1));
  job = parts.Job(session);
  EXPECT_FALSE(job->own) << "nobody wants to write to it";
  job->unchanged = true;
  job->record.fingerprint = "model";
  parts.reader.ReadDone(session, job.get());
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(found->ok());
}

TEST(SessionReaderTest, AStateThatWasReadThroughIsLookedAtAgain) {
  ReaderParts parts(WithStore());
  Session* session = parts.Stored("a");
  session->now.state->checked = false;
  std::optional<absl::Status> first, second;
  parts.reader.CheckState(session, Tell(&first));
  auto job = parts.reader.CheckJob(session);
  ASSERT_NE(job, nullptr);
  EXPECT_EQ(job->record.state_id, "file-a");
  EXPECT_FALSE(job->trusted);
  EXPECT_EQ(job->file, FileStamp());
  job->file = {.number = 7, .time_us = 8, .size = 9};
  parts.queue->Return(*job);
  parts.reader.CheckDone(session, *job);
  ASSERT_TRUE(first.has_value());
  EXPECT_TRUE(first->ok());
  parts.reader.CheckState(session, Tell(&second));
  EXPECT_FALSE(second.has_value()) << "the file may have gone since";
  const auto again = parts.reader.CheckJob(session);
  ASSERT_NE(again, nullptr);
  EXPECT_TRUE(again->trusted);
  EXPECT_EQ(again->file, job->file);
}

}  // namespace
}  // namespace sluice
