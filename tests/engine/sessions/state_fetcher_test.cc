#include "engine/sessions/state_fetcher.h"

#include <optional>

#include "gtest/gtest.h"
#include "tests/fakes/session_parts.h"

namespace sluice {
namespace {

struct FetcherParts : SessionParts {
  explicit FetcherParts(int64_t host_states = 100)
      : SessionParts(WithStore(), host_states),
        fetcher(context, table.get(), queue.get(), endings.get()) {}
  std::unique_ptr<StoreJob> Job() {
    std::vector<std::unique_ptr<StoreJob>> jobs;
    fetcher.AddJobs(&jobs);
    if (jobs.empty()) return nullptr;
    queue->Return(*jobs.front());
    return std::move(jobs.front());
  }

  StateFetcher fetcher;
};

TEST(StateFetcherTest, OneReadServesAll) {
  FetcherParts parts;
  Session* session = parts.Stored("a");
  const StatePtr state = session->now.state;
  std::optional<absl::Status> first, second, later;
  parts.fetcher.Fetch(state, Tell(&first));
  parts.fetcher.Fetch(state, Tell(&second));
  auto job = parts.Job();
  ASSERT_NE(job, nullptr);
  EXPECT_EQ(job->record.state_id, "file-a");
  EXPECT_EQ(parts.Job(), nullptr);
  EXPECT_FALSE(first.has_value());
  job->data = std::make_shared<StateData>(parts.copies->table().bytes());
  parts.fetcher.Done(session, job.get());
  EXPECT_TRUE(first->ok() && second->ok());
  EXPECT_TRUE(state->data_ready());
  parts.fetcher.Fetch(state, Tell(&later));
  EXPECT_TRUE(later->ok());
}

TEST(StateFetcherTest, AStateOfAnotherSizeIsDamage) {
  FetcherParts parts;
  Session* session = parts.Stored("a");
  std::optional<absl::Status> told;
  parts.fetcher.Fetch(session->now.state, Tell(&told));
  auto job = parts.Job();
  job->data = std::make_shared<StateData>(3);
  parts.fetcher.Done(session, job.get());
  EXPECT_TRUE(absl::IsDataLoss(*told));
  EXPECT_TRUE(session->lost);
}

TEST(StateFetcherTest, AForksFileServesWhenTheParentHasMovedOn) {
  FetcherParts parts;
  Session* parent = parts.Stored("a");
  Session* fork = parts.Live("b");
  const StatePtr state = parent->now.state;
  SetStored(fork, state, "file-b");
  std::optional<absl::Status> told;
  parts.fetcher.Fetch(state, Tell(&told));
  auto job = parts.Job();
  ASSERT_EQ(job->record.id, "a");
  job->status = absl::AbortedError("another generation");
  parts.fetcher.Done(parent, job.get());
  EXPECT_FALSE(told.has_value());
  job = parts.Job();
  ASSERT_NE(job, nullptr);
  EXPECT_EQ(job->record.id, "b");
  job->status = absl::AbortedError("another generation");
  parts.fetcher.Done(fork, job.get());
  EXPECT_TRUE(IsLostRace(*told));
}

TEST(StateFetcherTest, WithoutRoomItSaysSo) {
  FetcherParts parts(/*host_states=*/1);
  Session* session = parts.Stored("a");
  const StatePtr other = parts.InMemory(2);
  const Pin pin(other);
  std::optional<absl::Status> told;
  parts.fetcher.Fetch(session->now.state, Tell(&told));
  EXPECT_TRUE(absl::IsResourceExhausted(*told));
  EXPECT_TRUE(parts.fetcher.empty());
}

}  // namespace
}  // namespace sluice
