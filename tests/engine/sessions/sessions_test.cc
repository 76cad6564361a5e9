// Sessions without a store: what their owner sees, and what calls do with them.

#include "engine/sessions/sessions.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/recording_sink.h"

namespace sluice {
namespace {

constexpr int64_t kVocab = 4096;

EngineOptions WithLimits(int64_t host_states, absl::Duration ttl = absl::Hours(1)) {
  EngineOptions options;
  options.fingerprint = "model";
  options.session_limits.host_state_bytes = host_states * 16;  // of the fake engine's shape
  options.session_limits.default_ttl = ttl;
  options.session_limits.max_sessions_per_tenant = 12;
  return options;
}

Request Continue(const std::string& session, std::vector<int32_t> prompt, int32_t max_new_tokens,
                 uint64_t seed = 1) {
  Request request;
  request.session_id = session;
  request.request_id = "r";
  request.prompt = std::move(prompt);
  request.seed = seed;
  request.stop.max_new_tokens = max_new_tokens;
  request.stop.ignore_eos = true;
  request.output.token_ids = true;
  return request;
}

class SessionsTest : public testing::Test {
 protected:
  explicit SessionsTest(int64_t host_states = 1000, int32_t slots = 8)
      : fake({}, slots, slots + 8, WithLimits(host_states)) {}

  template <typename T>
  static Done<T> Into(std::optional<absl::StatusOr<T>>* out) {
    return [out](absl::StatusOr<T> result) {
      ASSERT_FALSE(out->has_value()) << "answered twice";
      out->emplace(std::move(result));
    };
  }
  absl::StatusOr<SessionInfo> Create(const std::string& id, const std::string& tenant = "") {
    std::optional<absl::StatusOr<SessionInfo>> out;
    fake.engine->sessions().Create(tenant, {.id = id}, Into(&out));
    return *out;
  }
  absl::StatusOr<SessionInfo> Get(const std::string& id, const std::string& tenant = "") {
    std::optional<absl::StatusOr<SessionInfo>> out;
    fake.engine->sessions().Get(tenant, id, Into(&out));
    return *out;
  }
  absl::StatusOr<SessionInfo> Fork(const std::string& id, const std::string& child,
                                   const std::string& etag = "") {
    std::optional<absl::StatusOr<SessionInfo>> out;
    fake.engine->sessions().Fork("", id, etag, {.id = child}, Into(&out));
    return *out;
  }
  absl::Status Delete(const std::string& id, const std::string& tenant = "") {
    std::optional<absl::Status> out;
    fake.engine->sessions().Delete(tenant, id, "", [&](absl::Status s) { out = std::move(s); });
    return *out;
  }
  std::shared_ptr<RecordingSink> Submit(Request request, RequestId* id = nullptr) {
    auto sink = std::make_shared<RecordingSink>();
    const RequestId submitted = fake.engine->Submit(std::move(request), sink);
    if (id != nullptr) *id = submitted;
    return sink;
  }
  std::shared_ptr<RecordingSink> Run(Request request) {
    auto sink = Submit(std::move(request));
    fake.RunDry();
    return sink;
  }

  // The tokens that a call on a session with this history must give, by the definition of the fake
  // model; the history grows by them.
  static std::vector<int32_t> Expected(std::vector<int32_t>* history, const Request& request) {
    history->insert(history->end(), request.prompt.begin(), request.prompt.end());
    std::vector<int32_t> out;
    for (int32_t i = 0; i < request.stop.max_new_tokens; ++i) {
      const int32_t token =
          FakeBackend::NextToken(*history, kVocab, request.seed, 0, history->size());
      history->push_back(token);
      out.push_back(token);
      const auto& stops = request.stop.token_ids;
      if (std::find(stops.begin(), stops.end(), token) != stops.end()) break;
    }
    return out;
  }

  FakeEngine fake;
};

class FewSlotsTest : public SessionsTest {
 protected:
  FewSlotsTest() : SessionsTest(1000, 2) {}
};

class LittleRoomTest : public SessionsTest {
 protected:
  LittleRoomTest() : SessionsTest(2) {}
};

TEST_F(SessionsTest, ACallGoesOnWhereTheLastOneEnded) {
  ASSERT_TRUE(Create("a").ok());
  std::vector<int32_t> history;
  std::string etag = Get("a")->etag;
  for (int turn = 0; turn < 6; ++turn) {
    // Empty prompts and calls that generate nothing are among them.
    std::vector<int32_t> prompt;
    for (int32_t i = 0; i < (turn % 3 == 2 ? 0 : turn * 3 + 1); ++i) prompt.push_back(5 + i);
    const Request request = Continue("a", prompt, turn == 4 ? 0 : 7, turn);
    auto sink = Run(request);
    ASSERT_TRUE(sink->status->ok()) << *sink->status;
    EXPECT_EQ(sink->token_ids[0], Expected(&history, request)) << "turn " << turn;
    ASSERT_NE(sink->finished[0].session, nullptr);
    const SessionInfo info = *Get("a");
    EXPECT_EQ(info.position, static_cast<int64_t>(history.size()));
    EXPECT_EQ(sink->finished[0].session->etag, info.etag);
    EXPECT_EQ(sink->finished[0].usage.prompt_tokens, static_cast<int64_t>(prompt.size()));
    EXPECT_NE(info.etag, etag);
    EXPECT_EQ(info.last_request_id, "r");
    EXPECT_EQ(info.numerics_id, "fake-1");
    EXPECT_FALSE(info.busy);
    etag = info.etag;
  }
  EXPECT_EQ(fake.engine->stats().commits.value(), 6u);
  EXPECT_EQ(fake.engine->stats().slots_used.value(), 0);
}

TEST_F(SessionsTest, AStopCommitsItselfAndNothingBehindIt) {
  ASSERT_TRUE(Create("a").ok());
  std::vector<int32_t> history;
  for (uint64_t turn = 0; turn < 20; ++turn) {
    Request request = Continue("a", {7, 8}, 100, turn);
    for (int32_t id = 0; id < kVocab; id += 8) request.stop.token_ids.push_back(id);
    auto sink = Run(request);
    EXPECT_EQ(sink->token_ids[0], Expected(&history, request));
    ASSERT_EQ(Get("a")->position, static_cast<int64_t>(history.size()));
  }
}

TEST_F(SessionsTest, WhatDoesNotCommitLeavesNoTrace) {
  ASSERT_TRUE(Create("a").ok());
  std::vector<int32_t> history;
  const Request first = Continue("a", {5, 6, 7}, 5);
  Run(first);
  Expected(&history, first);
  const SessionInfo before = *Get("a");

  Request never = Continue("a", {9}, 4);
  never.commit = false;
  never.n = 3;
  auto sink = Run(never);
  EXPECT_TRUE(sink->status->ok());
  EXPECT_EQ(sink->finished[0].session, nullptr);
  RequestId id = 0;
  auto cancelled = Submit(Continue("a", {9}, 1000), &id);
  for (int i = 0; i < 9; ++i) fake.engine->Step();
  EXPECT_TRUE(Get("a")->busy);
  fake.engine->Cancel(id, absl::CancelledError());
  Request late = Continue("a", {9}, 1000000);
  late.deadline = fake.clock.Now() + absl::Milliseconds(20);
  EXPECT_TRUE(absl::IsDeadlineExceeded(*Run(late)->status));
  fake.backend.set_poison_token(13);
  auto poisoned = Run(Continue("a", {13}, 5));
  EXPECT_EQ(poisoned->finished[0].reason, FinishReason::kError);
  EXPECT_EQ(poisoned->finished[0].session, nullptr);
  Request score = Continue("a", {10, 11}, 0);
  score.kind = RequestKind::kScore;
  score.output.prompt_logprobs = 0;
  auto scored = Run(score);
  ASSERT_EQ(scored->prompt_logprobs.size(), 2u);
  EXPECT_EQ(scored->prompt_logprobs[0].logprob, FakeBackend::Logprob(history, 10));

  const SessionInfo after = *Get("a");
  EXPECT_EQ(after.etag, before.etag);
  EXPECT_EQ(after.position, before.position);
  const Request next = Continue("a", {4}, 9);
  EXPECT_EQ(Run(next)->token_ids[0], Expected(&history, next));
}

TEST_F(SessionsTest, ATimeLimitCommitsWhatCame) {
  ASSERT_TRUE(Create("a").ok());
  Request limited = Continue("a", {9}, 1000000, 3);
  limited.stop.time_limit = absl::Milliseconds(30);
  auto sink = Run(limited);
  ASSERT_TRUE(sink->status->ok());
  EXPECT_EQ(sink->finished[0].reason, FinishReason::kTimeLimit);
  std::vector<int32_t> history;
  limited.stop.max_new_tokens = static_cast<int32_t>(sink->token_ids[0].size());
  EXPECT_EQ(sink->token_ids[0], Expected(&history, limited));
  const Request next = Continue("a", {}, 9);
  EXPECT_EQ(Run(next)->token_ids[0], Expected(&history, next));
}

TEST_F(FewSlotsTest, ForksShareAPastAndHaveTheirOwnFuture) {
  ASSERT_TRUE(Create("root").ok());
  std::vector<int32_t> history;
  const Request first = Continue("root", {5, 6, 7}, 5);
  Run(first);
  Expected(&history, first);
  RequestId id = 0;
  auto running = Submit(Continue("root", {1}, 100000), &id);
  for (int i = 0; i < 9; ++i) fake.engine->Step();
  for (int i = 0; i < 6; ++i) {
    const auto fork = Fork("root", "fork" + std::to_string(i));
    ASSERT_TRUE(fork.ok());
    EXPECT_EQ(fork->affinity, "root");
    EXPECT_EQ(fork->position, 8);
  }
  fake.engine->Cancel(id, absl::CancelledError());
  for (uint64_t turn = 0; turn < 3; ++turn) {
    for (int i = 0; i < 6; ++i) {
      std::vector<int32_t> own = history;
      for (uint64_t t = 0; t <= turn; ++t) {
        const Request request = Continue("fork" + std::to_string(i), {i + 4}, 5, t);
        const std::vector<int32_t> expected = Expected(&own, request);
        if (t == turn) {
          EXPECT_EQ(Run(request)->token_ids[0], expected);
        }
      }
    }
  }
  EXPECT_GT(fake.engine->stats().host_restores.value(), 0u);
  EXPECT_EQ(fake.engine->stats().forks.value(), 6u);
}

TEST_F(SessionsTest, OneWriterAtATime) {
  ASSERT_TRUE(Create("a").ok());
  RequestId id = 0;
  auto first = Submit(Continue("a", {5}, 30), &id);
  for (int i = 0; i < 5; ++i) fake.engine->Step();
  EXPECT_TRUE(absl::IsAborted(*Submit(Continue("a", {6}, 5))->status));
  Request wait = Continue("a", {7}, 5);
  wait.on_conflict = OnConflict::kWait;
  auto second = Submit(wait);
  Request reader = Continue("a", {8}, 5);
  reader.commit = false;
  auto beside = Submit(reader);
  fake.RunDry();
  std::vector<int32_t> history;
  EXPECT_EQ(first->token_ids[0], Expected(&history, Continue("a", {5}, 30)));
  EXPECT_EQ(second->token_ids[0], Expected(&history, wait));
  std::vector<int32_t> empty;
  EXPECT_EQ(beside->token_ids[0], Expected(&empty, reader));

  auto running = Submit(Continue("a", {9}, 100000));
  fake.engine->Step();
  Request over = Continue("a", {4}, 5);
  over.on_conflict = OnConflict::kCancelRunning;
  auto taken = Submit(over);
  EXPECT_TRUE(absl::IsCancelled(*running->status));
  fake.RunDry();
  EXPECT_EQ(taken->token_ids[0], Expected(&history, over));
  EXPECT_EQ(fake.engine->live_requests(), 0);
}

TEST_F(SessionsTest, AnOldEtagChangesNothing) {
  const std::string etag = Create("a")->etag;
  Request request = Continue("a", {5}, 5);
  request.etag = etag;
  EXPECT_TRUE(Run(request)->status->ok());
  EXPECT_TRUE(absl::IsAborted(*Run(request)->status));
  EXPECT_TRUE(absl::IsAborted(Fork("a", "b", etag).status()));
  EXPECT_TRUE(Fork("a", "b", Get("a")->etag).ok());
}

TEST_F(SessionsTest, ACallThatAnOldEtagRefusesTakesNothingOver) {
  const std::string old = Create("a")->etag;
  EXPECT_TRUE(Run(Continue("a", {5}, 5))->status->ok());
  auto running = Submit(Continue("a", {9}, 100));
  fake.engine->Step();
  Request over = Continue("a", {4}, 5);
  over.on_conflict = OnConflict::kCancelRunning;
  over.etag = old;
  auto refused = Submit(over);
  EXPECT_TRUE(absl::IsAborted(*refused->status)) << *refused->status;
  EXPECT_FALSE(running->status.has_value());
  fake.RunDry();
  EXPECT_TRUE(running->status->ok()) << *running->status;
}

TEST_F(SessionsTest, TenantsDoNotSeeEachOther) {
  ASSERT_TRUE(Create("a", "one").ok());
  ASSERT_TRUE(Create("a", "two").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(Create("a", "two").status()));
  ASSERT_TRUE(Create("b", "two").ok());
  const absl::Status foreign = Get("b", "one").status();
  EXPECT_TRUE(absl::IsNotFound(foreign));
  EXPECT_EQ(foreign.message(), "there is no session 'b'");
  EXPECT_EQ(Get("absent", "one").status().message(), "there is no session 'absent'");
  EXPECT_TRUE(absl::IsNotFound(Delete("b", "one")));
  Request request = Continue("b", {5}, 5);
  request.tenant = "one";
  EXPECT_TRUE(absl::IsNotFound(*Run(request)->status));
  EXPECT_EQ(Get("b", "two")->position, 0);
}

TEST_F(SessionsTest, GuessesFindNothing) {
  Sessions& sessions = fake.engine->sessions();
  std::vector<std::string> ids;
  for (int i = 0; i < 12; ++i) ids.push_back(Create("", "owner")->id);
  std::mt19937_64 random(1);
  int64_t refused = 0;
  for (int i = 0; i < 100000; ++i) {
    const std::string guess =
        absl::StrCat(absl::Hex(random(), absl::kZeroPad16), absl::Hex(random(), absl::kZeroPad16));
    // By the owner, among whose sessions a guess may hit one; and of a session that is there, by
    // somebody else.
    for (const auto& target : {std::pair("owner", guess), std::pair("other", ids[i % 12])}) {
      sessions.Get(target.first, target.second, [&](absl::StatusOr<SessionInfo> info) {
        const std::string text = absl::StrCat("there is no session '", target.second, "'");
        refused += absl::IsNotFound(info.status()) && info.status().message() == text;
      });
    }
  }
  EXPECT_EQ(refused, 200000);
}

TEST_F(SessionsTest, PagesAreInTheOrderOfIdsAndKeepToLabels) {
  for (int i = 0; i < 12; ++i) {
    std::optional<absl::StatusOr<SessionInfo>> out;
    fake.engine->sessions().Create(
        "", {.id = "s" + std::to_string(10 + i), .labels = {{"odd", i % 2 ? "yes" : "no"}}},
        Into(&out));
    ASSERT_TRUE(out->ok());
  }
  EXPECT_TRUE(absl::IsResourceExhausted(Create("one too many").status()));
  EXPECT_TRUE(Create("other", "tenant").ok());
  std::vector<std::string> ids;
  std::string after;
  int pages = 0;
  do {
    std::optional<absl::StatusOr<SessionPage>> out;
    fake.engine->sessions().List("", 4, after, {{"odd", "yes"}}, Into(&out));
    ASSERT_TRUE(out->ok());
    for (const SessionInfo& info : (*out)->sessions) ids.push_back(info.id);
    after = (*out)->next_after;
    ++pages;
  } while (!after.empty());
  EXPECT_EQ(ids, (std::vector<std::string>{"s11", "s13", "s15", "s17", "s19", "s21"}));
  EXPECT_EQ(pages, 2);
}

TEST_F(SessionsTest, TimeToLiveCountsFromTheLastUseWhateverTheTimeOfDay) {
  ASSERT_TRUE(Create("a").ok());
  for (int i = 0; i < 4; ++i) {
    fake.clock.Advance(absl::Minutes(50));
    fake.clock.JumpWall(i % 2 ? absl::Hours(24) : -absl::Hours(24));
    ASSERT_TRUE(Run(Continue("a", {5}, 2))->status->ok());
    // The call ended some milliseconds ago.
    const absl::Duration left = Get("a")->expire_time - fake.clock.WallNow();
    EXPECT_GT(left, absl::Minutes(59));
    EXPECT_LE(left, absl::Hours(1));
  }
  EXPECT_LE(fake.engine->NextDeadline(), fake.clock.Now() + absl::Hours(1));
  fake.clock.Advance(absl::Minutes(61));
  fake.engine->Step();
  EXPECT_TRUE(absl::IsNotFound(Get("a").status()));
  EXPECT_EQ(fake.engine->stats().sessions_expired.value(), 1u);
  EXPECT_EQ(fake.engine->stats().device_states.value(), 0);
}

TEST_F(SessionsTest, BusySessionsAreCounted) {
  const auto busy = [&] {
    fake.engine->Step();
    return fake.engine->stats().busy_sessions.value();
  };
  ASSERT_TRUE(Create("a").ok());
  ASSERT_TRUE(Create("b").ok());
  EXPECT_EQ(busy(), 0);
  RequestId id = 0;
  auto first = Submit(Continue("a", {5}, 100000), &id);
  auto second = Submit(Continue("b", {5}, 100000));
  Request wait = Continue("a", {7}, 5);
  wait.on_conflict = OnConflict::kWait;
  auto waiting = Submit(wait);
  Request reader = Continue("b", {8}, 100000);
  reader.commit = false;
  RequestId reader_id = 0;
  auto beside = Submit(reader, &reader_id);
  EXPECT_EQ(busy(), 2);
  EXPECT_TRUE(Delete("b").ok());
  EXPECT_EQ(busy(), 1);
  fake.engine->Cancel(id, absl::CancelledError("left"));
  EXPECT_EQ(busy(), 1);  // the one that waited
  fake.engine->Cancel(reader_id, absl::CancelledError("left"));
  fake.RunDry();
  EXPECT_TRUE(waiting->status->ok());
  EXPECT_EQ(busy(), 0);
}

TEST_F(SessionsTest, DeleteEndsTheCallThatWrites) {
  ASSERT_TRUE(Create("a").ok());
  auto running = Submit(Continue("a", {5}, 100000));
  Request wait = Continue("a", {7}, 5);
  wait.on_conflict = OnConflict::kWait;
  auto waiting = Submit(wait);
  for (int i = 0; i < 5; ++i) fake.engine->Step();
  EXPECT_TRUE(Delete("a").ok());
  EXPECT_TRUE(absl::IsCancelled(*running->status));
  EXPECT_TRUE(absl::IsNotFound(*waiting->status));
  EXPECT_TRUE(absl::IsNotFound(Delete("a")));
  fake.RunDry();
  EXPECT_EQ(fake.engine->live_requests(), 0);
  EXPECT_EQ(fake.engine->stats().slots_used.value(), 0);
}

TEST_F(LittleRoomTest, RoomIsRefusedBeforeACallNotAfter) {
  for (const char* id : {"a", "b", "c"}) ASSERT_TRUE(Create(id).ok());
  ASSERT_TRUE(Run(Continue("a", {5}, 5))->status->ok());
  auto b = Submit(Continue("b", {5}, 50));
  EXPECT_TRUE(absl::IsResourceExhausted(*Submit(Continue("c", {5}, 5))->status));
  fake.RunDry();
  EXPECT_TRUE(b->status->ok());
  EXPECT_TRUE(absl::IsResourceExhausted(*Run(Continue("c", {5}, 5))->status));
  EXPECT_TRUE(Delete("a").ok());
  EXPECT_TRUE(Run(Continue("c", {5}, 5))->status->ok());
}

TEST_F(LittleRoomTest, AFullDaemonGoesOnWithTheSessionsItHas) {
  std::map<std::string, std::vector<int32_t>> histories;
  for (const char* id : {"a", "b", "c"}) ASSERT_TRUE(Create(id).ok());
  const auto turn = [&](const std::string& id, int seed) {
    const Request request = Continue(id, {5, 6 + seed}, 5, seed);
    auto sink = Run(request);
    ASSERT_TRUE(sink->status->ok()) << *sink->status;
    EXPECT_EQ(sink->token_ids[0], Expected(&histories[id], request));
    EXPECT_LE(fake.engine->stats().host_states.value(), 2);
  };
  for (int i = 0; i < 5; ++i) {
    turn("a", i);
    turn("b", i);
    EXPECT_TRUE(absl::IsResourceExhausted(*Run(Continue("c", {5}, 5))->status));
  }
  // Both at once; what does not commit leaves the old state where it was.
  RequestId id = 0;
  auto cancelled = Submit(Continue("a", {9}, 50), &id);
  auto other = Submit(Continue("b", {9}, 3, 9));
  fake.engine->Step();
  fake.engine->Cancel(id, absl::CancelledError());
  fake.RunDry();
  EXPECT_TRUE(absl::IsCancelled(*cancelled->status));
  EXPECT_EQ(other->token_ids[0], Expected(&histories["b"], Continue("b", {9}, 3, 9)));
  turn("a", 10);
  turn("b", 10);
  ASSERT_TRUE(Delete("a").ok());
  turn("c", 11);
}

TEST_F(LittleRoomTest, WhoWantsTheOldStateOfARunningCallNeedsRoom) {
  for (const char* id : {"a", "b"}) {
    ASSERT_TRUE(Create(id).ok());
    ASSERT_TRUE(Run(Continue(id, {5}, 5))->status->ok());
  }
  auto writer = Submit(Continue("a", {9}, 50));
  Request reader = Continue("a", {9}, 5);
  reader.commit = false;
  EXPECT_TRUE(absl::IsResourceExhausted(Fork("a", "a2").status()));
  EXPECT_TRUE(absl::IsResourceExhausted(*Submit(reader)->status));
  // A fork of a session that nobody writes to is one more reference.
  ASSERT_TRUE(Fork("b", "b2").ok());
  // The old state stays for whoever wants it if there is room.
  ASSERT_TRUE(Delete("b").ok());
  ASSERT_TRUE(Delete("b2").ok());
  ASSERT_TRUE(Fork("a", "a2").ok());
  ASSERT_TRUE(Fork("a", "a3").ok());
  auto reading = Submit(reader);
  fake.RunDry();
  EXPECT_TRUE(writer->status->ok());
  EXPECT_TRUE(reading->status->ok());
  EXPECT_EQ(Get("a2")->position, 6);
  EXPECT_EQ(Get("a")->position, 57);
  EXPECT_EQ(fake.engine->stats().host_states.value(), 2);
  // One state for two sessions, and no room for a third: neither can go on alone.
  EXPECT_TRUE(absl::IsResourceExhausted(*Run(Continue("a2", {5}, 5))->status));
  ASSERT_TRUE(Delete("a3").ok());
  EXPECT_TRUE(Run(Continue("a2", {5}, 5))->status->ok());
}

TEST_F(SessionsTest, ExportedStatesContinueElsewhere) {
  ASSERT_TRUE(Create("a").ok());
  const Request first = Continue("a", {5, 6}, 5);
  Run(first);
  std::vector<int32_t> history;
  Expected(&history, first);
  std::optional<absl::StatusOr<ExportedState>> out;
  fake.engine->sessions().Export("", "a", "", Into(&out));
  fake.RunDry();
  ASSERT_TRUE(out.has_value() && out->ok());
  FakeEngine other({}, 8, 16, WithLimits(10));
  std::optional<absl::StatusOr<SessionInfo>> imported;
  other.engine->sessions().Import("", {.id = "copy"}, (*out)->info, *(*out)->data, Into(&imported));
  ASSERT_TRUE(imported->ok());
  EXPECT_EQ((*imported)->position, 7);
  const Request next = Continue("copy", {8}, 6);
  auto sink = std::make_shared<RecordingSink>();
  other.engine->Submit(next, sink);
  other.RunDry();
  EXPECT_EQ(sink->token_ids[0], Expected(&history, next));
}

TEST_F(SessionsTest, AnEmptyPromptNeedsAHistory) {
  ASSERT_TRUE(Create("a").ok());
  EXPECT_TRUE(absl::IsInvalidArgument(*Run(Continue("a", {}, 5))->status));
  Request request = Continue("a", {8}, 3);
  request.prompt_if_empty = {1, 8};
  Run(request);
  EXPECT_EQ(Get("a")->position, 5);
  Run(request);
  EXPECT_EQ(Get("a")->position, 9);
}

TEST_F(SessionsTest, ADeviceFaultEndsWhoeverWaits) {
  ASSERT_TRUE(Create("a").ok());
  fake.backend.FailAfterSteps(4);
  auto running = Submit(Continue("a", {5}, 50));
  Request wait = Continue("a", {7}, 5);
  wait.on_conflict = OnConflict::kWait;
  auto waiting = Submit(wait);
  fake.RunDry();
  EXPECT_TRUE(absl::IsUnavailable(*running->status));
  EXPECT_TRUE(absl::IsUnavailable(*waiting->status));
  EXPECT_TRUE(waiting->events.empty()) << "its turn came after the device had failed";
}

}  // namespace
}  // namespace sluice
