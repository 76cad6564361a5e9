// What breaks at every point where it can: the device, its memory, the disk. Each test runs one
// piece of work again and again, with the fault one call later each time, until it comes too late.

#include <cstdio>
#include <cstring>
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

StateSpec Spec() {
  ModelShape shape;
  shape.vocab = kVocab;
  shape.layers = 1;
  shape.hidden = 8;
  shape.heads = shape.kv_heads = 1;
  shape.dk = shape.dv = 2;
  shape.intermediate = 8;
  return {"model", MakeStateLayout(shape)};
}

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

  // Until nothing is left to do, the writes that are tried again later too if `retries`.
  void Drive(bool retries = false) {
    for (int i = 0; i < 10000; ++i) {
      const bool worked = engine().Step();
      const bool jobs = RunJobs();
      fake_->clock.Advance(absl::Milliseconds(1));
      if (worked || jobs) continue;
      const absl::Duration next = engine().NextDeadline();
      if (next == absl::InfiniteDuration() || (!retries && engine().live_requests() == 0)) return;
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
  // What the session's owner was last told.
  Tokens& History(const std::string& id) { return histories_[id]; }

  // Whether the session is, to the bit, what it is after `history`.
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
    // What the disk has is what was, or what the call that was told UNAVAILABLE would have made.
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

// With no step that would find out.
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

}  // namespace
}  // namespace sluice
