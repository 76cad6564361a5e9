// Daemons that share a session directory, one after another's moment: what each sees of the others,
// who waits for whom, and what is counted.

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "tests/fakes/recording_sink.h"
#include "tests/fakes/shared_daemons.h"

namespace sluice {
namespace {

using Tokens = std::vector<int32_t>;

template <typename T>
using Answer = std::shared_ptr<std::optional<absl::StatusOr<T>>>;

Answer<SessionInfo> NewAnswer() {
  return std::make_shared<std::optional<absl::StatusOr<SessionInfo>>>();
}
Done<SessionInfo> Into(const Answer<SessionInfo>& out) {
  return [out](absl::StatusOr<SessionInfo> result) {
    ASSERT_FALSE(out->has_value()) << "answered twice";
    out->emplace(std::move(result));
  };
}

class SharedSessionsTest : public testing::Test {
 protected:
  void Boot(size_t count, SharedOptions options = {}) {
    daemons = std::make_unique<SharedDaemons>(count, options);
  }
  SharedDaemon& At(size_t i) { return (*daemons)[i]; }
  absl::StatusOr<SessionInfo> Wait(const Answer<SessionInfo>& answer) {
    daemons->Until([&] { return answer->has_value(); });
    return answer->has_value() ? **answer : absl::StatusOr<SessionInfo>(absl::UnknownError(""));
  }
  absl::StatusOr<SessionInfo> Create(size_t i, const std::string& id,
                                     const std::string& tenant = "") {
    const auto answer = NewAnswer();
    At(i).sessions().Create(tenant, {.id = id}, Into(answer));
    return Wait(answer);
  }
  absl::StatusOr<SessionInfo> Get(size_t i, const std::string& id) {
    const auto answer = NewAnswer();
    At(i).sessions().Get("", id, Into(answer));
    return Wait(answer);
  }
  absl::StatusOr<SessionInfo> Fork(size_t i, const std::string& id, const std::string& child) {
    const auto answer = NewAnswer();
    At(i).sessions().Fork("", id, "", {.id = child}, Into(answer));
    return Wait(answer);
  }
  absl::StatusOr<SessionInfo> Update(size_t i, const std::string& id, const std::string& etag) {
    const auto answer = NewAnswer();
    SessionChange change;
    change.labels = {{"by", absl::StrCat(i)}};
    At(i).sessions().Update("", id, etag, change, Into(answer));
    return Wait(answer);
  }
  std::shared_ptr<std::optional<absl::Status>> StartDelete(size_t i, const std::string& id,
                                                           const std::string& etag = "") {
    auto out = std::make_shared<std::optional<absl::Status>>();
    At(i).sessions().Delete("", id, etag, [out](absl::Status s) { out->emplace(std::move(s)); });
    return out;
  }
  absl::Status Delete(size_t i, const std::string& id) {
    const auto out = StartDelete(i, id);
    daemons->Until([&] { return out->has_value(); });
    return out->value_or(absl::UnknownError(""));
  }
  std::vector<std::string> List(size_t i) {
    std::optional<absl::StatusOr<SessionPage>> page;
    At(i).sessions().List("", 100, "", {}, [&](absl::StatusOr<SessionPage> p) { page = p; });
    daemons->Until([&] { return page.has_value(); });
    std::vector<std::string> ids;
    for (const SessionInfo& info : (*page)->sessions) {
      ids.push_back(absl::StrCat(info.id, ":", info.position));
    }
    return ids;
  }
  static Request Turn(const std::string& id, Tokens prompt, int32_t tokens) {
    Request request = MakeRequest(std::move(prompt), tokens);
    request.session_id = id;
    request.stop.ignore_eos = true;
    request.on_conflict = OnConflict::kFail;
    return request;
  }
  std::shared_ptr<RecordingSink> Submit(size_t i, Request request) {
    auto sink = std::make_shared<RecordingSink>();
    At(i).Submit(std::move(request), sink);
    return sink;
  }
  absl::Status Run(size_t i, Request request, std::shared_ptr<RecordingSink>* out = nullptr) {
    auto sink = Submit(i, std::move(request));
    daemons->Until([&] { return sink->status.has_value(); });
    if (out != nullptr) *out = sink;
    return sink->status.value_or(absl::UnknownError(""));
  }
  // All daemons count what is written by now.
  void Listed() {
    for (int i = 0; i < 10; ++i) daemons->Turn();
    daemons->Advance(absl::Seconds(3));
    daemons->Turn();
  }
  bool Started(const RecordingSink& sink) { return !sink.events.empty(); }

  std::unique_ptr<SharedDaemons> daemons;
};

TEST_F(SharedSessionsTest, TurnsOnDaemonAfterDaemonAreOneHistory) {
  for (const bool durable : {false, true}) {
    Boot(3);
    ASSERT_TRUE(Create(0, "s").ok());
    Tokens history;
    for (int turn = 0; turn < 60; ++turn) {
      Request request = Turn("s", {10 + turn}, turn % 3);
      request.durable = durable;
      std::shared_ptr<RecordingSink> sink;
      const absl::Status status = Run(static_cast<size_t>(turn) % 3, request, &sink);
      ASSERT_TRUE(status.ok()) << "turn " << turn << ": " << status;
      history.push_back(10 + turn);
      for (int i = 0; i < turn % 3; ++i) {
        history.push_back(FakeBackend::NextToken(history, kVocab, 1, 0, history.size()));
      }
      const Tokens& own = sink->token_ids[0];
      ASSERT_TRUE(std::equal(own.begin(), own.end(), history.end() - turn % 3)) << turn;
    }
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(Get(i, "s")->position, static_cast<int64_t>(history.size()));
      EXPECT_EQ(At(i).engine().stats().lost_races.value(), 0u);
      EXPECT_EQ(At(i).engine().stats().store_errors.value(), 0u);
    }
  }
}

TEST_F(SharedSessionsTest, ACallThatDoesNotWaitIsToldThatAnotherDaemonIsBusy) {
  Boot(2);
  ASSERT_TRUE(Create(0, "s").ok());
  const auto running = Submit(0, Turn("s", {5}, 3000));
  daemons->Until([&] { return Started(*running); });
  EXPECT_TRUE(Get(1, "s")->busy);
  const auto refused = Submit(1, Turn("s", {6}, 1));
  const absl::Duration took = daemons->Until([&] { return refused->status.has_value(); });
  EXPECT_TRUE(absl::IsAborted(*refused->status)) << *refused->status;
  EXPECT_TRUE(absl::StartsWith(refused->status->message(), "the session is busy"));
  EXPECT_LT(took, absl::Milliseconds(300));
  daemons->Until([&] { return running->status.has_value(); });
  EXPECT_TRUE(running->status->ok()) << "undisturbed";
  EXPECT_TRUE(Run(1, Turn("s", {6}, 1)).ok()) << "and now it is free";
  EXPECT_FALSE(Get(0, "s")->busy);
}

TEST_F(SharedSessionsTest, ACallThatWaitsGoesOnFromTheOthersState) {
  Boot(2);
  ASSERT_TRUE(Create(0, "s").ok());
  const auto running = Submit(0, Turn("s", {5}, 50));
  daemons->Until([&] { return Started(*running); });
  Request request = Turn("s", {6}, 2);
  request.on_conflict = OnConflict::kWait;
  const auto waiting = Submit(1, request);
  daemons->Until([&] { return waiting->status.has_value(); });
  EXPECT_TRUE(running->status.has_value() && running->status->ok());
  ASSERT_TRUE(waiting->status->ok()) << *waiting->status;
  EXPECT_EQ(waiting->finished[0].session->position, 1 + 50 + 1 + 2);
}

TEST_F(SharedSessionsTest, OneThatWaitsElsewhereIsNextBeforeAStreamOfOwnCalls) {
  Boot(2);
  ASSERT_TRUE(Create(0, "s").ok());
  std::vector<std::shared_ptr<RecordingSink>> own;
  Request request = Turn("s", {5}, 20);
  request.on_conflict = OnConflict::kWait;
  for (int i = 0; i < 200; ++i) own.push_back(Submit(0, request));
  daemons->Until([&] { return Started(*own[0]); });
  const auto other = Submit(1, request);
  const absl::Duration took = daemons->Until([&] { return other->status.has_value(); });
  EXPECT_TRUE(other->status->ok()) << *other->status;
  EXPECT_LT(took, absl::Seconds(1));
  EXPECT_FALSE(own.back()->status.has_value()) << "they were many";
  daemons->Until([&] { return own.back()->status.has_value(); });
  for (const auto& sink : own) EXPECT_TRUE(sink->status->ok()) << *sink->status;
  EXPECT_EQ(Get(1, "s")->position, 201 * 21);
}

TEST_F(SharedSessionsTest, ACallTakesOverFromOneOnAnotherDaemonWithinASecond) {
  Boot(2);
  ASSERT_TRUE(Create(0, "s").ok());
  ASSERT_TRUE(Run(0, Turn("s", {4}, 2)).ok());
  const auto running = Submit(0, Turn("s", {5}, 1 << 20));
  daemons->Until([&] { return Started(*running); });
  Request request = Turn("s", {6}, 2);
  request.on_conflict = OnConflict::kCancelRunning;
  const auto taker = Submit(1, request);
  const absl::Duration took = daemons->Until([&] { return taker->status.has_value(); });
  EXPECT_LT(took, absl::Seconds(1));
  EXPECT_TRUE(absl::IsCancelled(*running->status)) << *running->status;
  ASSERT_TRUE(taker->status->ok()) << *taker->status;
  EXPECT_EQ(taker->finished[0].session->position, 3 + 3);
}

TEST_F(SharedSessionsTest, ADeleteEndsACallOnAnotherDaemonWithinASecond) {
  Boot(2);
  ASSERT_TRUE(Create(0, "s").ok());
  const auto running = Submit(0, Turn("s", {5}, 1 << 20));
  daemons->Until([&] { return Started(*running); });
  Request request = Turn("s", {6}, 2);
  request.on_conflict = OnConflict::kWait;
  const auto waiting = Submit(0, request);
  const auto deleted = StartDelete(1, "s");
  const absl::Duration took = daemons->Until([&] { return deleted->has_value(); });
  EXPECT_TRUE((*deleted)->ok()) << **deleted;
  EXPECT_LT(took, absl::Seconds(1));
  EXPECT_TRUE(absl::IsCancelled(*running->status)) << *running->status;
  daemons->Until([&] { return waiting->status.has_value(); });
  EXPECT_TRUE(absl::IsNotFound(*waiting->status)) << *waiting->status;
  for (size_t i : {0, 1}) EXPECT_TRUE(absl::IsNotFound(Get(i, "s").status()));
  EXPECT_TRUE(Create(0, "s").ok()) << "its name is free again";
  EXPECT_EQ(Get(1, "s")->position, 0);
}

TEST_F(SharedSessionsTest, WhoAsksForTheNewestWaitsUntilItIsOnDisk) {
  Boot(2);
  ASSERT_TRUE(Create(0, "s").ok());
  ASSERT_TRUE(Run(0, Turn("s", {4}, 0)).ok());
  const auto sink = Submit(0, Turn("s", {5}, 3));
  // Until it is acknowledged, and not a job further.
  for (int i = 0; i < 1000 && !sink->status.has_value(); ++i) {
    At(0).engine().Step();
    if (!sink->status.has_value()) At(0).RunOneJob();
  }
  ASSERT_TRUE(sink->status.has_value() && sink->status->ok());
  ASSERT_EQ(At(0).sessions().unwritten(), 1);
  const auto answer = NewAnswer();
  At(1).sessions().Get("", "s", Into(answer));
  for (int i = 0; i < 50; ++i) {
    At(1).RunJobs();
    daemons->Advance(absl::Milliseconds(10));
  }
  EXPECT_FALSE(answer->has_value()) << "the disk has an older state";
  EXPECT_EQ(Wait(answer)->position, 5);
  // A daemon that cannot write what it acknowledged: the others are told, and not the older state.
  const auto stuck = Submit(0, Turn("s", {5}, 3));
  for (int i = 0; i < 1000 && !stuck->status.has_value(); ++i) {
    At(0).engine().Step();
    if (!stuck->status.has_value()) At(0).RunOneJob();
  }
  const auto late = NewAnswer();
  At(1).sessions().Get("", "s", Into(late));
  for (int i = 0; i < 300; ++i) {
    At(1).RunJobs();
    daemons->Advance(absl::Milliseconds(10));
  }
  ASSERT_TRUE(late->has_value());
  EXPECT_TRUE(absl::IsUnavailable((*late)->status())) << (*late)->status();
}

TEST_F(SharedSessionsTest, AnOldEtagIsRefusedEverywhere) {
  Boot(2);
  const std::string first = Create(0, "s")->etag;
  EXPECT_EQ(Get(1, "s")->etag, first);
  ASSERT_TRUE(Run(0, Turn("s", {4}, 2)).ok());
  const std::string second = Get(0, "s")->etag;
  EXPECT_TRUE(absl::IsAborted(Update(1, "s", first).status()));
  Request request = Turn("s", {4}, 2);
  request.etag = first;
  EXPECT_TRUE(absl::IsAborted(Run(1, request)));
  const auto deleted = StartDelete(1, "s", first);
  daemons->Until([&] { return deleted->has_value(); });
  EXPECT_TRUE(absl::IsAborted(**deleted));
  const absl::StatusOr<SessionInfo> updated = Update(1, "s", second);
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_EQ(updated->position, 3);
  EXPECT_EQ(Get(0, "s")->labels.at("by"), "1");
  EXPECT_EQ(Get(0, "s")->etag, updated->etag);
  request.etag = updated->etag;
  EXPECT_TRUE(Run(0, request).ok());
}

TEST_F(SharedSessionsTest, WhatAnOldEtagRefusesEndsNoCallAnywhere) {
  Boot(2);
  const std::string old = Create(0, "s")->etag;
  ASSERT_TRUE(Run(0, Turn("s", {4}, 2)).ok());
  ASSERT_TRUE(Get(1, "s").ok());
  const auto running = Submit(0, Turn("s", {5}, 1 << 20));
  daemons->Until([&] { return Started(*running); });
  for (size_t i : {0, 1}) {
    const auto deleted = StartDelete(i, "s", old);
    daemons->Until([&] { return deleted->has_value(); });
    EXPECT_TRUE(absl::IsAborted(**deleted)) << **deleted;
    Request request = Turn("s", {6}, 2);
    request.on_conflict = OnConflict::kCancelRunning;
    request.etag = old;
    EXPECT_TRUE(absl::IsAborted(Run(i, request))) << "daemon " << i;
  }
  for (int i = 0; i < 20; ++i) {
    for (size_t j : {0, 1}) At(j).RunJobs();
    daemons->Advance(absl::Milliseconds(100));
  }
  EXPECT_FALSE(running->status.has_value()) << *running->status;
  const auto deleted = StartDelete(1, "s", Get(1, "s")->etag);
  daemons->Until([&] { return deleted->has_value(); });
  EXPECT_TRUE((*deleted)->ok()) << **deleted;
  EXPECT_TRUE(absl::IsCancelled(*running->status)) << *running->status;
}

TEST_F(SharedSessionsTest, ForksAndExportsAndReadersSeeTheNewest) {
  Boot(2, {.host_states = 3});
  ASSERT_TRUE(Create(0, "s").ok());
  Tokens history;
  for (int turn = 0; turn < 12; ++turn) {
    ASSERT_TRUE(Run(0, Turn("s", {40 + turn}, 0)).ok());
    history.push_back(40 + turn);
    const std::string child = absl::StrCat("child", turn);
    const auto forked = Fork(1, "s", child);
    ASSERT_TRUE(forked.ok()) << forked.status();
    EXPECT_EQ(forked->position, turn + 1);
    Request request = Turn(child, {}, 3);
    request.commit = false;
    std::shared_ptr<RecordingSink> sink;
    ASSERT_TRUE(Run(turn % 2, request, &sink).ok());
    Tokens all = history;
    for (int i = 0; i < 3; ++i) {
      all.push_back(FakeBackend::NextToken(all, kVocab, 1, 0, all.size()));
    }
    EXPECT_EQ(sink->token_ids[0], Tokens(all.end() - 3, all.end()));
    std::optional<absl::StatusOr<ExportedState>> exported;
    At(1).sessions().Export("", "s", "",
                            [&](absl::StatusOr<ExportedState> state) { exported = state; });
    daemons->Until([&] { return exported.has_value(); });
    ASSERT_TRUE(exported->ok()) << exported->status();
    EXPECT_EQ((*exported)->info.position, turn + 1);
  }
}

TEST_F(SharedSessionsTest, AListHasWhatOthersMadeAndNotWhatTheyDeleted) {
  Boot(2);
  ASSERT_TRUE(Create(0, "a").ok());
  ASSERT_TRUE(Create(1, "b").ok());
  ASSERT_TRUE(Run(1, Turn("a", {1, 2}, 0)).ok());
  EXPECT_EQ(List(0), (std::vector<std::string>{"a:2", "b:0"}));
  EXPECT_EQ(List(1), (std::vector<std::string>{"a:2", "b:0"}));
  EXPECT_TRUE(Delete(0, "b").ok());
  EXPECT_EQ(List(1), (std::vector<std::string>{"a:2"}));
  EXPECT_TRUE(absl::IsAlreadyExists(Create(1, "a").status()));
  EXPECT_TRUE(Create(1, "b").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(Create(0, "b").status()));
}

TEST_F(SharedSessionsTest, BoundsCountTheWholeDirectory) {
  Boot(2, {.max_sessions = 6, .max_sessions_per_tenant = 4});
  for (size_t i = 0; i < 4; ++i) ASSERT_TRUE(Create(i % 2, absl::StrCat("s", i)).ok());
  for (size_t i : {0, 1}) {
    EXPECT_TRUE(absl::IsResourceExhausted(Create(i, "more").status()));
    EXPECT_TRUE(absl::IsResourceExhausted(Fork(i, "s0", "more").status()));
    EXPECT_TRUE(Create(i, absl::StrCat("t", i), "other").ok()) << "another tenant";
  }
  for (size_t i : {0, 1}) {
    EXPECT_TRUE(absl::IsResourceExhausted(Create(i, "t2", "other").status()));
    EXPECT_EQ(At(i).engine().stats().store_errors.value(), 0u) << "no error of the disk";
  }
  EXPECT_EQ(List(0).size(), 4u);
  ASSERT_TRUE(Delete(1, "s0").ok());
  EXPECT_TRUE(Create(0, "s9").ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Create(1, "s10").status()));
}

TEST_F(SharedSessionsTest, RoomOnDiskCountsTheStatesOfAll) {
  Boot(2, {.disk_states = 4});
  for (size_t i = 0; i < 6; ++i) ASSERT_TRUE(Create(i % 2, absl::StrCat("s", i)).ok());
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(Run(0, Turn(absl::StrCat("s", i), {1, 2}, 0)).ok());
    Listed();
  }
  ASSERT_TRUE(Run(1, Turn("s3", {1, 2}, 0)).ok()) << "the last that there is room for";
  Listed();
  for (size_t i : {0, 1}) {
    const absl::Status status = Run(i, Turn("s4", {1, 2}, 0));
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << i << " " << status;
  }
  ASSERT_TRUE(Delete(1, "s0").ok());
  Listed();
  EXPECT_TRUE(Run(0, Turn("s5", {1, 2}, 0)).ok());
}

TEST_F(SharedSessionsTest, ADeadDaemonLosesAtMostWhatItHadNotWritten) {
  Boot(2);
  ASSERT_TRUE(Create(0, "s").ok());
  ASSERT_TRUE(Run(0, Turn("s", {4}, 0)).ok());
  const auto plain = Submit(0, Turn("s", {5}, 3));
  for (int i = 0; i < 1000 && !plain->status.has_value(); ++i) {
    At(0).engine().Step();
    if (!plain->status.has_value()) At(0).RunOneJob();
  }
  ASSERT_TRUE(plain->status->ok());
  Request request = Turn("s", {6}, 0);
  request.on_conflict = OnConflict::kWait;
  const auto waiting = Submit(1, request);
  for (int i = 0; i < 20; ++i) {
    At(1).engine().Step();
    At(1).RunJobs();
    daemons->Advance(absl::Milliseconds(10));
  }
  EXPECT_FALSE(waiting->status.has_value());
  daemons->Kill(0);
  daemons->Until([&] { return waiting->status.has_value(); });
  ASSERT_TRUE(waiting->status->ok()) << *waiting->status;
  EXPECT_EQ(waiting->finished[0].session->position, 2);
}

TEST_F(SharedSessionsTest, SessionsOfOneHashWaitForEachOther) {
  Boot(2, {.lock_slots = 1});
  for (const char* id : {"a", "b", "c"}) ASSERT_TRUE(Create(0, id).ok());
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 30; ++i) {
    Request request = Turn(std::string(1, static_cast<char>('a' + i % 3)), {i + 3}, 2);
    request.on_conflict = OnConflict::kWait;
    request.durable = i % 4 == 0;
    sinks.push_back(Submit(static_cast<size_t>(i / 3) % 2, request));
  }
  daemons->Until(
      [&] {
        return std::all_of(sinks.begin(), sinks.end(),
                           [](const auto& sink) { return sink->status.has_value(); });
      },
      absl::Seconds(100));
  for (const auto& sink : sinks) EXPECT_TRUE(sink->status->ok()) << *sink->status;
  for (const char* id : {"a", "b", "c"}) EXPECT_EQ(Get(1, id)->position, 30);
  // A call that takes over one of them is nobody's business who has another.
  const auto running = Submit(0, Turn("a", {5}, 500));
  daemons->Until([&] { return Started(*running); });
  Request request = Turn("b", {6}, 0);
  request.on_conflict = OnConflict::kCancelRunning;
  const auto other = Submit(1, request);
  daemons->Until([&] { return other->status.has_value(); });
  EXPECT_TRUE(other->status->ok()) << *other->status;
  EXPECT_TRUE(running->status->ok()) << *running->status;
}

TEST_F(SharedSessionsTest, NothingIsHeldOrAskedForInTheEnd) {
  Boot(2);
  for (const char* id : {"a", "b"}) ASSERT_TRUE(Create(0, id).ok());
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 24; ++i) {
    Request request = Turn(i % 2 == 0 ? "a" : "b", {i + 3}, 30);
    request.on_conflict = static_cast<OnConflict>(i % 3);
    request.durable = i % 5 == 0;
    if (i % 7 == 3) request.deadline = daemons->now() + absl::Milliseconds(i);
    sinks.push_back(Submit(static_cast<size_t>(i / 2) % 2, request));
    for (int turn = 0; turn < i; ++turn) daemons->Turn();
  }
  daemons->Until([&] {
    return std::all_of(sinks.begin(), sinks.end(),
                       [](const auto& sink) { return sink->status.has_value(); });
  });
  for (int i = 0; i < 300; ++i) daemons->Turn();
  daemons->Start();
  SessionLocks* locks = At(2).store().locks();
  EXPECT_FALSE(*locks->AnybodyAsks());
  for (const char* id : {"a", "b"}) EXPECT_EQ(*locks->HolderOf({"", id}), SessionHolder::kNobody);
}

}  // namespace
}  // namespace sluice
