// Breaks the device, its memory and the disk at every point where they can break. Each test runs
// one piece of work again and again, with the fault one call later each time, until it comes too
// late.

#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/state/session_store.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/fakes/fake_calls.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/fake_files.h"
#include "tests/fakes/real_engine.h"
#include "tests/fakes/recording_sink.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

using Tokens = std::vector<int32_t>;

constexpr int64_t kStateBytes = 16;  // of the fake engine
constexpr int32_t kSlots = 3;        // fewer than there are sessions

StateSpec Spec() { return {"model", MakeStateTable(FakeSpec())}; }

struct WorldOptions {
  bool has_store = true;
  int64_t host_states = 100;
};

// An engine with sessions, and a disk that outlives it.
class World {
 public:
  struct Sink : RecordingSink {
    void Push(TokenEvent event) override {
      EXPECT_FALSE(told != nullptr && *told) << "a token after the fault";
      RecordingSink::Push(std::move(event));
    }
    const bool* told = nullptr;
  };
  struct Work {
    Request request;
    std::shared_ptr<Sink> sink;
    Tokens base;  // the history it goes on from

    Tokens Expected(int32_t sequence) const {
      Request whole = request;
      whole.prompt = base;
      whole.prompt.insert(whole.prompt.end(), request.prompt.begin(), request.prompt.end());
      return sluice::Expected(whole, sequence);
    }
    Tokens HistoryAfter() const {
      Tokens history = base;
      history.insert(history.end(), request.prompt.begin(), request.prompt.end());
      const Tokens own = Expected(0);
      history.insert(history.end(), own.begin(), own.end());
      return history;
    }
  };

  explicit World(const WorldOptions& options) : options_(options) { Boot(); }
  ~World() { Close(); }

  Engine& engine() { return *fake_->engine; }
  Sessions& sessions() { return engine().sessions(); }
  FaultBackend& device() { return fake_->device; }
  FakeBackend& backend() { return fake_->backend; }
  FakeFiles& files() { return files_; }
  FakeClock& clock() { return fake_->clock; }

  // Another process, or the first one.
  void Boot() {
    Close();
    files_.Restart();
    EngineOptions options;
    options.fingerprint = "model";
    options.has_store = options_.has_store;
    if (options_.has_store) {
      auto store = SessionStore::Open(&files_, "/d", Spec());
      ASSERT_TRUE(store.ok()) << store.status();
      store_ = *std::move(store);
      options.session_index = store_->TakeIndex();
    }
    options.session_limits.host_state_bytes = options_.host_states * kStateBytes;
    options.session_limits.disk_state_bytes = 1000 * kStateBytes;
    options.session_limits.default_ttl = absl::InfiniteDuration();
    options.prefix_cache_bytes = 5000;
    fake_ = std::make_unique<FakeEngine>(
        FakeBackend::Options{.grid = 4, .steps_in_flight = 2, .seed = 1}, kSlots, kSlots + 8,
        options);
    told_ = false;
    fake_->device.set_on_told([this] { told_ = true; });
  }

  // Until nothing is left to do for a while; with `retries`, the writes that are tried again later
  // too.
  void Drive(bool retries = false) {
    const absl::Duration end =
        retries ? absl::InfiniteDuration() : clock().Now() + absl::Seconds(8);
    for (int i = 0; i < 10000; ++i) {
      const bool worked = engine().Step();
      const bool jobs = RunJobs();
      fake_->clock.Advance(absl::Milliseconds(1));
      if (worked || jobs) continue;
      const absl::Duration next = engine().NextDeadline();
      if (next == absl::InfiniteDuration() || next > end) return;
      fake_->clock.Advance(next - fake_->clock.Now());
    }
    FAIL() << "it never settles";
  }
  bool RunJobs() {
    bool any = false;
    for (auto& job : sessions().TakeJobs()) {
      RunStoreJob(store_.get(), job.get());
      sessions().JobDone(std::move(job));
      any = true;
    }
    return any;
  }

  Work Submit(Request request) {
    Work work{request, std::make_shared<Sink>(), {}};
    work.sink->told = &told_;
    const auto it = histories_.find(request.session_id);
    if (it != histories_.end()) work.base = it->second;
    id_ = engine().Submit(std::move(request), work.sink);
    return work;
  }
  RequestId last_id() const { return id_; }

  absl::Status Create(const std::string& id) {
    std::optional<absl::Status> out;
    sessions().Create("", {.id = id}, [&](const auto& info) { out = info.status(); });
    Drive();
    if (out->ok()) histories_[id] = {};
    return *out;
  }
  absl::StatusOr<SessionInfo> Get(const std::string& id) {
    std::optional<absl::StatusOr<SessionInfo>> out;
    sessions().Get("", id, [&](absl::StatusOr<SessionInfo> info) { out = std::move(info); });
    Drive();
    return *out;
  }
  absl::StatusOr<ExportedState> Export(const std::string& id) {
    std::optional<absl::StatusOr<ExportedState>> out;
    sessions().Export("", id, "", [&](absl::StatusOr<ExportedState> s) { out = std::move(s); });
    Drive();
    return *out;
  }
  absl::Status Delete(const std::string& id) {
    std::optional<absl::Status> out;
    sessions().Delete("", id, "", [&](absl::Status s) { out = std::move(s); });
    Drive();
    return *out;
  }
  // The history that the session's owner was last told.
  Tokens& History(const std::string& id) { return histories_[id]; }

  // True if the session is, to the bit, what it is after `history`.
  bool Is(const std::string& id, const Tokens& history) {
    const absl::StatusOr<ExportedState> state = Export(id);
    if (!state.ok() || state->info.position != static_cast<int64_t>(history.size())) return false;
    if (history.empty()) return true;
    uint64_t hash = 0;
    std::memcpy(&hash, state->data->data(), sizeof hash);
    return hash == FakeBackend::HashOf({history.begin(), history.end() - 1}) &&
           state->info.last_token == history.back();
  }

 private:
  void Close() {
    if (fake_ == nullptr) return;
    if (store_ != nullptr) {  // what is out goes nowhere
      for (auto& job : sessions().TakeJobs()) {
        job->status = absl::UnavailableError("gone");
        sessions().JobDone(std::move(job));
      }
    }
    EXPECT_EQ(engine().live_requests(), 0);
    fake_.reset();
    store_.reset();
  }

  const WorldOptions options_;
  FakeFiles files_;
  std::unique_ptr<SessionStore> store_;
  std::unique_ptr<FakeEngine> fake_;
  std::map<std::string, Tokens> histories_;
  RequestId id_ = 0;
  bool told_ = false;
};

Request On(const std::string& session, Tokens prompt, int32_t max_new_tokens, bool durable) {
  Request request = MakeRequest(std::move(prompt), max_new_tokens, 7);
  request.session_id = session;
  request.durable = durable;
  request.stop.ignore_eos = true;
  return request;
}

// Sessions with histories of their own, all on disk if there is one; no more in slots than fit.
void Prepare(World* world, std::vector<std::string> ids) {
  int32_t token = 100;
  for (const std::string& id : ids) {
    if (!world->Create(id).ok()) continue;
    const World::Work work = world->Submit(On(id, {++token, 6, 7, 8, 9}, 4, true));
    world->Drive();
    if (work.sink->status->ok()) world->History(id) = work.HistoryAfter();
  }
}

// Prompts that are read and reused, forks within a call and of sessions, commits of either kind, a
// slow reader that gives its slot up, states that come from the host and go there.
struct Everything {
  std::vector<World::Work> calls;
  World::Work slow;
  std::optional<absl::Status> forked, exported;
  Tokens fork_history;

  void Run(World* world) {
    Request slow_request = On("", {11, 12, 13}, 30, false);
    slow_request.commit = false;
    slow = world->Submit(slow_request);
    slow.sink->room = 0;
    calls.push_back(world->Submit(On("a", {21, 22}, 6, false)));
    calls.push_back(world->Submit(On("b", {23, 24, 25, 26, 27, 28}, 5, true)));
    calls.push_back(world->Submit(On("c", {29, 30, 31}, 0, true)));
    Request twice = On("", {1, 2, 3, 4, 5, 6, 7, 8, 9}, 8, false);
    twice.n = 2;
    twice.commit = false;
    twice.sampling.repetition_penalty = 1.5f;
    calls.push_back(world->Submit(twice));
    calls.push_back(world->Submit(twice));
    fork_history = world->History("d");
    world->sessions().Fork("", "d", "", {.id = "fork"},
                           [this](const auto& info) { forked = info.status(); });
    world->sessions().Export("", "d", "", [this](const auto& s) { exported = s.status(); });
    for (int i = 0; i < 30; ++i) {
      world->engine().Step();
      world->RunJobs();
    }
    world->Drive();  // past the slow reader's patience
    slow.sink->room = 1 << 20;
    world->Drive();
    calls.push_back(slow);
  }
};

// ---- The device ----

void ExpectUnavailableOrWhole(const World::Work& work) {
  ASSERT_TRUE(work.sink->status.has_value());
  const bool ok = work.sink->status->ok();
  EXPECT_TRUE(ok || absl::IsUnavailable(*work.sink->status)) << *work.sink->status;
  for (int32_t i = 0; i < work.request.n; ++i) {
    const Tokens expected = work.Expected(i);
    const Tokens& got = work.sink->token_ids[i];
    ASSERT_LE(got.size(), expected.size());
    EXPECT_EQ(got, Tokens(expected.begin(), expected.begin() + static_cast<int64_t>(got.size())));
    const bool finished = work.sink->finished.count(i) > 0;
    EXPECT_TRUE(finished || !ok) << "OK without an end";
    EXPECT_TRUE(!finished || got == expected) << "an end before the end";
  }
}

TEST(FaultTest, ADeviceThatBreaksAtAnyCall) {
  int64_t tried = 0;
  for (int64_t n = 0;; ++n) {
    SCOPED_TRACE(absl::StrCat("the device broke at call ", n));
    World world({});
    Prepare(&world, {"a", "b", "c", "d"});
    world.device().FailWork(n);
    Everything all;
    all.Run(&world);
    if (!world.device().failed()) break;
    ++tried;
    for (const World::Work& work : all.calls) ExpectUnavailableOrWhole(work);
    EXPECT_TRUE(world.device().told());
    EXPECT_FALSE(world.engine().device_status().ok());
    EXPECT_EQ(world.device().work_after_told(), 0);
    EXPECT_EQ(world.engine().live_requests(), 0);
    const World::Work late = world.Submit(On("a", {5}, 3, false));
    EXPECT_TRUE(absl::IsUnavailable(*late.sink->status));
    EXPECT_TRUE(all.forked.has_value());
    EXPECT_TRUE(all.exported.has_value());
    // The disk has what was there before, or what the call that was told UNAVAILABLE would have
    // made.
    world.Boot();
    for (const World::Work& work : all.calls) {
      const std::string& id = work.request.session_id;
      if (id.empty()) continue;
      const bool acknowledged = work.sink->status->ok() && work.request.durable;
      EXPECT_TRUE(world.Is(id, work.HistoryAfter()) || (!acknowledged && world.Is(id, work.base)))
          << id;
    }
    if (all.forked->ok()) {
      EXPECT_TRUE(world.Is("fork", all.fork_history));
    }
    EXPECT_TRUE(world.Is("d", all.fork_history));
    if (testing::Test::HasFailure()) return;
  }
  std::printf("%lld calls of the device\n", static_cast<long long>(tried));
  EXPECT_GT(tried, 200);
}

// No step runs here that would find it out.
TEST(FaultTest, ADeviceThatBreaksUnderACopyIsNotTakenForDone) {
  World world({});
  Prepare(&world, {"a"});
  const World::Work work = world.Submit(On("a", {21, 22}, 6, false));
  while (!work.sink->status.has_value()) world.engine().Step();
  ASSERT_TRUE(work.sink->status->ok());
  world.device().FailWork(0);
  world.device().ZeroState(0);
  world.Drive(/*retries=*/true);
  EXPECT_FALSE(world.engine().device_status().ok());
  world.Boot();
  EXPECT_TRUE(world.Is("a", work.base) || world.Is("a", work.HistoryAfter()));
}

SessionChange Label(const std::string& value) {
  SessionChange change;
  change.labels = {{"k", value}};
  return change;
}

// A commit and two changes that wait for a state that will never arrive.
TEST(FaultTest, ADeviceThatBreaksEndsWhateverWaitsForAState) {
  World world({});
  Prepare(&world, {"a"});
  const World::Work work = world.Submit(On("a", {21, 22}, 6, true));
  std::optional<absl::Status> forked, first, second;
  const auto into = [](std::optional<absl::Status>* out) {
    return [out](const absl::StatusOr<SessionInfo>& info) { *out = info.status(); };
  };
  while (!work.sink->token_ids.count(0) || work.sink->token_ids[0].size() < 6) {
    world.engine().Step();
  }
  ASSERT_FALSE(work.sink->status.has_value());  // waits for the disk
  world.sessions().Update("", "a", "", Label("1"), into(&first));
  world.sessions().Update("", "a", "", Label("2"), into(&second));
  world.device().FailWork(0);
  world.device().ZeroState(0);
  world.Drive();
  EXPECT_TRUE(absl::IsUnavailable(*work.sink->status));
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_TRUE(first->ok()) << *first;  // of what was committed before
  EXPECT_TRUE(second->ok()) << *second;
  EXPECT_TRUE(world.Is("a", work.base));
  EXPECT_FALSE(world.sessions().jobs_outstanding());

  const World::Work b = world.Submit(On("b", {1}, 1, true));
  EXPECT_TRUE(absl::IsUnavailable(*b.sink->status));
}

TEST(FaultTest, AForkOfAStateThatWillNeverArriveIsNoSession) {
  World world({});
  Prepare(&world, {"a"});
  const World::Work work = world.Submit(On("a", {21, 22}, 6, false));
  while (!work.sink->status.has_value()) world.engine().Step();
  std::optional<absl::Status> forked;
  world.sessions().Fork("", "a", "", {.id = "fork"},
                        [&](const auto& info) { forked = info.status(); });
  world.device().FailWork(0);
  world.device().ZeroState(0);
  world.Drive();
  ASSERT_TRUE(forked.has_value());
  EXPECT_TRUE(absl::IsUnavailable(*forked)) << *forked;
  EXPECT_TRUE(absl::IsNotFound(world.Get("fork").status()));
  EXPECT_TRUE(world.Create("fork").ok());
}

// The one place where a call's end waits for a copy.
TEST(FaultTest, ADeviceThatBreaksUnderTheCommitOfASlowReader) {
  World world({});
  Prepare(&world, {"a"});
  Request slow = On("a", {21, 22}, 50, false);
  slow.stop.time_limit = absl::Seconds(5);
  const World::Work work = world.Submit(slow);
  for (int i = 0; i < 6; ++i) world.engine().Step();
  work.sink->room = 0;
  std::vector<World::Work> others;
  for (int32_t i = 0; i < kSlots; ++i) {
    Request other = On("", {5, 6}, 50, false);
    other.commit = false;
    others.push_back(world.Submit(other));
  }
  while (world.engine().stats().spills.value() == 0) {
    world.engine().Step();
    world.clock().Advance(absl::Milliseconds(100));
  }
  ASSERT_FALSE(work.sink->status.has_value());
  world.device().FailWork(0);
  world.device().ZeroState(0);
  world.Drive();
  EXPECT_TRUE(absl::IsUnavailable(*work.sink->status));
  EXPECT_EQ(world.device().work_after_told(), 0);
  EXPECT_EQ(world.engine().live_requests(), 0);
}

// ---- Numbers that are not finite ----

constexpr int32_t kPoison = 4000;  // a row that has seen this token is not finite, nor its state

void ExpectAsDefined(const World::Work& work) {
  ASSERT_TRUE(work.sink->status.has_value());
  EXPECT_TRUE(work.sink->status->ok()) << *work.sink->status;
  for (int32_t i = 0; i < work.request.n; ++i) EXPECT_EQ(work.sink->token_ids[i], work.Expected(i));
}

TEST(FaultTest, ARowThatIsNotFiniteEndsAloneAndItsSessionStays) {
  World world({});
  world.backend().set_poison_token(kPoison);
  Prepare(&world, {"a", "b", "c", "d"});
  Everything all;
  const World::Work decoded = world.Submit(On("d", {kPoison}, 5, true));
  all.Run(&world);
  for (const World::Work& work : all.calls) {
    ExpectAsDefined(work);
    if (!work.request.session_id.empty()) {
      EXPECT_TRUE(world.Is(work.request.session_id, work.HistoryAfter()));
    }
  }
  EXPECT_EQ(decoded.sink->finished[0].reason, FinishReason::kError);
  EXPECT_TRUE(absl::IsInternal(decoded.sink->finished[0].status));
  EXPECT_TRUE(decoded.sink->token_ids[0].empty());
  EXPECT_TRUE(world.Is("d", decoded.base));
  // Nothing is left of it: not in the slot, which others get, and not in the session.
  const World::Work next = world.Submit(On("d", {7, 8}, 6, true));
  world.Drive();
  ExpectAsDefined(next);
  EXPECT_EQ(world.engine().stats().slots_used.value(), 0);
}

TEST(FaultTest, APromptThatIsOnlyTakenInIsLookedAtToo) {
  for (const int32_t length : {2, 5, 30}) {
    World world({});
    world.backend().set_poison_token(kPoison);
    Prepare(&world, {"a"});
    Tokens prompt(length, 5);
    prompt[0] = kPoison;
    const World::Work work = world.Submit(On("a", prompt, 0, true));
    world.Drive();
    EXPECT_TRUE(absl::IsInternal(*work.sink->status)) << length << " " << *work.sink->status;
    EXPECT_TRUE(work.sink->finished.empty());
    EXPECT_TRUE(world.Is("a", work.base)) << length;
    const World::Work next = world.Submit(On("a", {7, 8}, 6, true));
    world.Drive();
    ExpectAsDefined(next);
  }
}

TEST(FaultTest, WhatThePrefixCacheKeptOfABadPromptIsNotReused) {
  World world({});
  Request request = On("", {}, 5, false);
  request.commit = false;
  for (int32_t i = 0; i < 40; ++i) request.prompt.push_back(5 + i);
  world.backend().set_poison_token(7);  // a device that errs once
  const World::Work bad = world.Submit(request);
  world.Drive();
  EXPECT_EQ(bad.sink->finished[0].reason, FinishReason::kError);
  world.backend().set_poison_token(-1);
  const World::Work again = world.Submit(request);
  world.Drive();
  ExpectAsDefined(again);
  EXPECT_EQ(world.engine().stats().prefix_hits.value(), 0u);
}

// On the real CPU backend: a state of NaNs beside sound ones, in decode rows and prompt rows.
TEST(FaultTest, ARowThatIsNotFiniteChangesNoBitOfOthers) {
  struct Result {
    std::vector<std::vector<uint32_t>> bits;
    std::vector<std::shared_ptr<RecordingSink>> bad;
  };
  const auto run = [](bool with_bad) {
    RealEngine real("tests/goldens/variants/short_conv",
                    {.threads = 1, .slots = 8, .max_batch_tokens = 136});
    Sessions& sessions = real.engine().sessions();
    const auto ok = [](const absl::StatusOr<SessionInfo>& info) { ASSERT_TRUE(info.ok()); };
    std::mt19937_64 rng(5);
    Result result;
    std::vector<std::shared_ptr<RecordingSink>> good;
    for (int i = 0; i < 3; ++i) {
      const std::string id = absl::StrCat("s", i);
      sessions.Create("", {.id = id}, ok);
      StateInfo info;
      info.position = 10;
      info.last_token = 5;
      // Numbers of which every bit is set are not finite.
      const auto bytes = static_cast<size_t>(MakeStateTable(real.spec()).BytesAt(info.seen()));
      sessions.Import("", {.id = absl::StrCat("bad", i)}, info, StateData(bytes, '\xff'), ok);
    }
    for (int round = 0; round < 2; ++round) {
      for (int i = 0; i < 3; ++i) {
        Request request = MakeRequest(RandomTokens(&rng, real.vocab(), 3 + 60 * i), 12, 9);
        request.session_id = absl::StrCat("s", i);
        request.stop.ignore_eos = true;
        request.output.logprobs = 2;
        Request bad = request;
        bad.session_id = absl::StrCat("bad", i);
        if (i == 2) bad.stop.max_new_tokens = 0;
        if (with_bad) {
          result.bad.push_back(std::make_shared<RecordingSink>());
          real.engine().Submit(bad, result.bad.back());
        }
        good.push_back(std::make_shared<RecordingSink>());
        real.engine().Submit(request, good.back());
      }
      while (real.engine().Step()) {
      }
    }
    for (const auto& sink : good) {
      EXPECT_TRUE(sink->status->ok());
      EXPECT_EQ(sink->token_ids[0].size(), 12u);
      result.bits.push_back(BitsOf(*sink, 1));
    }
    for (int i = 0; i < 3; ++i) {
      sessions.Get("", absl::StrCat("bad", i), [](const absl::StatusOr<SessionInfo>& info) {
        EXPECT_EQ(info->position, 10);  // nothing was committed
      });
    }
    return result;
  };
  const Result alone = run(false);
  const Result beside = run(true);
  EXPECT_EQ(alone.bits, beside.bits);
  ASSERT_EQ(beside.bad.size(), 6u);
  for (const auto& sink : beside.bad) {
    ASSERT_TRUE(sink->status.has_value());
    EXPECT_TRUE(sink->token_ids[0].empty());
    const bool ended = sink->finished.count(0) > 0;
    EXPECT_TRUE(absl::IsInternal(ended ? sink->finished[0].status : *sink->status));
  }
}

// ---- Memory ----

TEST(FaultTest, NoMemoryAtAnyAllocationOfTheStart) {
  auto checkpoint = Checkpoint::Open(SourcePath("tests/goldens/variants/short_conv"));
  ASSERT_TRUE(checkpoint.ok());
  const ModelSpec& spec = (*checkpoint)->config().spec;
  int64_t tried = 0;
  for (;; ++tried) {
    const auto cpu = MakeCpuBackend({.threads = 1});
    FaultBackend device(cpu.get());
    device.FailAllocation(tried);
    std::string fingerprint;
    const auto start = [&] {
      auto weights = (*checkpoint)->Load(&device, {}, &fingerprint);
      absl::Status status = weights.status();
      if (status.ok()) status = device.AllocateStates(spec, 4, 4, 68);
      if (status.ok()) status = Model::Create(&device, spec, *std::move(weights), 68).status();
      return status;
    };
    const absl::Status status = start();
    if (device.allocations() <= tried) {
      EXPECT_TRUE(status.ok()) << status;
      break;
    }
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << tried << " " << status;
  }
  std::printf("%lld allocations of a start\n", static_cast<long long>(tried));
  EXPECT_GT(tried, 10);
}

// States of slow readers take host memory too: no more of it than there is.
TEST(FaultTest, SlowReadersTakeNoMoreRoomThanThereIs) {
  constexpr int64_t kRoom = 4;
  World world({.has_store = false, .host_states = kRoom});
  std::vector<World::Work> calls;
  for (int32_t i = 0; i < 20; ++i) {
    Request request = On("", {5, i + 6}, 12, false);
    request.commit = false;
    calls.push_back(world.Submit(request));
    calls.back().sink->room = 0;
  }
  for (int i = 0; i < 300; ++i) {
    world.engine().Step();
    world.clock().Advance(absl::Milliseconds(100));
  }
  EXPECT_EQ(world.engine().stats().spills.value(), static_cast<uint64_t>(kRoom));
  for (const World::Work& work : calls) work.sink->room = 1 << 20;
  world.Drive();
  for (const World::Work& work : calls) ExpectAsDefined(work);
  // The room is there again.
  for (int64_t i = 0; i <= kRoom; ++i) {
    std::optional<absl::Status> imported;
    world.sessions().Import("", {.id = absl::StrCat("i", i)},
                            {.position = 3, .last_token = 5, .undecoded = "", .numerics_id = ""},
                            StateData(16), [&](const auto& made) { imported = made.status(); });
    EXPECT_EQ(imported->ok(), i < kRoom) << i << " " << *imported;
  }
}

// Only room for states in host memory may be refused at run time: the test tries every amount of
// it, from none to enough.
TEST(FaultTest, EveryAmountOfRoomForStates) {
  for (const bool has_store : {true, false}) {
    int64_t refused = 0;
    int64_t states = 0;
    for (bool all_ok = false; !all_ok; ++states) {
      SCOPED_TRACE(absl::StrCat(has_store, ", room for ", states));
      ASSERT_LT(states, 100);
      World world({.has_store = has_store, .host_states = states});
      Prepare(&world, {"a", "b", "c", "d"});
      Everything all;
      all.Run(&world);
      all_ok = all.forked->ok() && all.exported->ok();
      for (const World::Work& work : all.calls) {
        const bool in_session = !work.request.session_id.empty();
        const bool full = in_session && absl::IsResourceExhausted(*work.sink->status);
        all_ok &= !full;
        refused += full;
        if (!full) ExpectAsDefined(work);
        if (full) {
          EXPECT_TRUE(work.sink->events.empty());
        }
        // A session whose state cannot be had for want of room is there all the same.
        if (!in_session || states == 0) continue;
        const Tokens history = full ? work.base : work.HistoryAfter();
        EXPECT_EQ(world.Get(work.request.session_id)->position,
                  static_cast<int64_t>(history.size()));
        if (states >= 6) {
          EXPECT_TRUE(world.Is(work.request.session_id, history));
        }
      }
      // Nothing that was reserved is lost: there is room for as many again.
      for (const char* id : {"a", "b", "c", "d", "fork"}) world.Delete(id).IgnoreError();
      world.Drive();
      EXPECT_EQ(world.engine().stats().slots_used.value(), 0);
      EXPECT_EQ(world.engine().stats().disk_states.value(), 0);
      const StateInfo info = {.position = 3, .last_token = 5, .undecoded = "", .numerics_id = "x"};
      for (int64_t i = 0; i <= states && !has_store; ++i) {
        std::optional<absl::Status> imported;
        world.sessions().Import("", {.id = absl::StrCat("i", i)}, info, StateData(16),
                                [&](const auto& made) { imported = made.status(); });
        EXPECT_EQ(imported->ok(), i < states) << i << " " << *imported;
      }
      if (testing::Test::HasFailure()) return;
    }
    std::printf("%s store: room for 0 to %lld states, %lld calls refused\n",
                has_store ? "with a" : "without a", static_cast<long long>(states - 1),
                static_cast<long long>(refused));
    EXPECT_GT(refused, 5);
  }
}

// ---- The disk ----

bool HasLeftovers(FakeFiles* files) {
  for (const std::string& path : files->AllFiles("/d/tmp")) {
    if (!absl::EndsWith(path, ".lock") && !absl::EndsWith(path, "/daemon")) return true;
  }
  return false;
}

const absl::Status kFailures[] = {absl::ResourceExhaustedError("full"),
                                  absl::UnavailableError("broken")};

// One call of the file system fails: whoever waits for it is told why, all others do not notice,
// and the session is as it was. Little room: states are also read.
TEST(FaultTest, AnyCallOfTheFileSystemThatFails) {
  int64_t tried = 0;
  for (const absl::Status& failure : kFailures) {
    for (const int64_t host_states : {100, 6}) {
      for (int64_t n = 0;; ++n) {
        SCOPED_TRACE(absl::StrCat(failure.message(), " at call ", n, ", room for ", host_states));
        World world({.host_states = host_states});
        Prepare(&world, {"a", "b", "c", "d"});
        const int64_t before = world.files().calls();
        world.files().FailAt(n, failure);
        Everything all;
        all.Run(&world);
        if (world.files().calls() <= before + n) break;
        world.files().FailAt(-1, absl::OkStatus());
        ++tried;
        bool all_ok = all.forked->ok();
        for (const World::Work& work : all.calls) {
          const std::string& id = work.request.session_id;
          const absl::Status& status = *work.sink->status;
          all_ok &= status.ok();
          if (id.empty() || status.ok()) {
            ExpectAsDefined(work);
          } else {
            EXPECT_TRUE(status.code() == failure.code() || absl::IsResourceExhausted(status))
                << id << " " << status;
            EXPECT_TRUE(host_states == 6 || work.request.durable) << id << " " << status;
            EXPECT_TRUE(work.sink->finished.empty());
          }
          if (!id.empty()) world.History(id) = status.ok() ? work.HistoryAfter() : work.base;
        }
        EXPECT_TRUE(all.forked->ok() || all.forked->code() == failure.code()) << *all.forked;
        // A removal that failed is made up for at the next start.
        EXPECT_TRUE(all_ok || !HasLeftovers(&world.files()));
        for (const char* id : {"a", "b", "c", "d"}) {
          EXPECT_TRUE(world.Is(id, world.History(id))) << id;
          const World::Work next = world.Submit(On(id, {41, 42}, 3, true));
          world.Drive();
          ExpectAsDefined(next);
          world.History(id) = next.HistoryAfter();
        }
        world.Boot();
        for (const char* id : {"a", "b", "c", "d"}) {
          EXPECT_TRUE(world.Is(id, world.History(id))) << id;
        }
        if (all.forked->ok()) {
          EXPECT_TRUE(world.Is("fork", all.fork_history));
        }
        if (testing::Test::HasFailure()) return;
      }
    }
  }
  std::printf("%lld calls of the file system\n", static_cast<long long>(tried));
  EXPECT_GT(tried, 200);
}

// For a long time: what must be on disk is refused, what need not be goes on in memory and gets
// there once it can.
TEST(FaultTest, ADiskThatIsFullOrBrokenForALongTime) {
  for (const absl::Status& failure : kFailures) {
    SCOPED_TRACE(failure.message());
    const bool full = absl::IsResourceExhausted(failure);
    World world({});
    Prepare(&world, {"a", "b", "c", "d"});
    const auto set = [&](bool on) {
      full ? world.files().SetFull(on) : world.files().SetBroken(on);
    };
    set(true);
    for (int round = 0; round < 20; ++round) {
      Everything all;
      all.Run(&world);
      for (const World::Work& work : all.calls) {
        const std::string& id = work.request.session_id;
        if (!work.request.durable || id.empty()) {
          ExpectAsDefined(work);
          if (!id.empty()) world.History(id) = work.HistoryAfter();
          continue;
        }
        EXPECT_EQ(work.sink->status->code(), failure.code());
        EXPECT_TRUE(work.sink->finished.empty());
        EXPECT_TRUE(world.Is(id, work.base)) << id;
      }
      EXPECT_EQ(all.forked->code(), failure.code());
      EXPECT_EQ(world.Create("new").code(), failure.code());
      EXPECT_TRUE(absl::IsNotFound(world.Get("new").status()) || !full);
      world.clock().Advance(absl::Minutes(3));  // past every pause before a write is tried again
    }
    EXPECT_FALSE(world.Get("a")->durable);
    EXPECT_GT(world.engine().stats().store_errors.value(), 20u);
    set(false);
    EXPECT_FALSE(HasLeftovers(&world.files()));
    world.Drive(/*retries=*/true);
    EXPECT_TRUE(world.Get("a")->durable);
    EXPECT_TRUE(world.Create("new").ok());
    for (const char* id : {"b", "c"}) {
      const World::Work next = world.Submit(On(id, {41, 42}, 3, true));
      world.Drive();
      ExpectAsDefined(next);
      world.History(id) = next.HistoryAfter();
    }
    world.Boot();
    for (const char* id : {"a", "b", "c", "d"}) EXPECT_TRUE(world.Is(id, world.History(id))) << id;
  }
}

}  // namespace
}  // namespace sluice
