// Sessions, calls, store and device driven from one seed in one thread, against a reference that
// knows each session's history of tokens and the fake model's definition, nothing else. A failure
// prints its seed: SLUICE_SIM_SEED=N runs that one alone; SLUICE_SIM_SECONDS says for how long.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/state/session_store.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/fake_files.h"

namespace sluice {
namespace {

constexpr int64_t kVocab = 4096;
using Tokens = std::vector<int32_t>;

// What the session's owner has been told, in order.
struct Told {
  std::string etag;
  Tokens history;
};
struct RefSession {
  std::vector<Told> versions;
  size_t durable = 0;  // index of the first that a restart may bring back
  bool deleting = false;
};

struct Simulation;

struct SimSink : TokenSink {
  SimSink(Simulation* s, Request r) : sim(s), request(std::move(r)) {}
  int32_t Room() const override { return room; }
  void Push(TokenEvent event) override;
  void Close(absl::Status s) override;

  Simulation* const sim;
  const Request request;
  RequestId id = 0;
  int32_t room = 1 << 20;
  bool started = false;
  Tokens base;
  std::map<int32_t, Tokens> tokens;
  bool cancelled = false;
  std::optional<absl::Status> status;
};

struct Simulation {
  explicit Simulation(uint64_t s) : seed(s), rng(s) {
    slots = 2 + Below(4);
    host_states = slots + 2 + Below(12);
    disk_states = Below(2) == 0 ? 60 : 4 + Below(12);
    faults = Below(3) == 0;
    Boot();
  }

  size_t Below(size_t n) { return rng() % n; }

  void Boot() {
    ModelShape shape;
    shape.vocab = kVocab;
    shape.layers = 1;
    shape.hidden = 8;
    shape.heads = shape.kv_heads = 1;
    shape.dk = shape.dv = 2;
    shape.intermediate = 8;
    auto opened = SessionStore::Open(&files, "/d", {"model", MakeStateLayout(shape)});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store = *std::move(opened);
    EngineOptions options;
    options.fingerprint = "model";
    options.has_store = true;
    options.session_index = store->TakeIndex();
    options.session_limits.host_state_bytes = host_states * 16;
    options.session_limits.disk_state_bytes = disk_states * 16;
    options.session_limits.default_ttl = absl::InfiniteDuration();
    options.random = [this] { return ids(); };
    options.prefix_cache_bytes = static_cast<int64_t>(Below(3) * 3000);
    fake = std::make_unique<FakeEngine>(
        FakeBackend::Options{
            .grid = 4, .steps_in_flight = 1 + static_cast<int32_t>(Below(3)), .seed = rng()},
        slots, slots + 12, options);
  }

  // ---- The store ----

  void RunJobs(bool all) {
    do {
      for (auto& job : fake->engine->sessions().TakeJobs()) jobs.push_back(std::move(job));
      if (jobs.empty()) return;
      // The store does them in order; what it is slow with stays out.
      std::unique_ptr<StoreJob> job = std::move(jobs.front());
      jobs.erase(jobs.begin());
      if (faults && Below(40) == 0) {
        files.FailAt(static_cast<int64_t>(Below(12)), Below(2)
                                                          ? absl::ResourceExhaustedError("full")
                                                          : absl::UnavailableError("broken"));
      }
      RunStoreJob(store.get(), job.get());
      fake->engine->sessions().JobDone(std::move(job));
    } while (all || Below(3) != 0);
  }

  // Until nothing is left to do.
  void Settle() {
    for (auto& sink : calls) sink->room = 1 << 20;
    for (int i = 0; i < 100000; ++i) {
      const bool worked = fake->engine->Step();
      fake->clock.Advance(absl::Milliseconds(1));
      RunJobs(true);
      if (!worked && fake->engine->live_requests() == 0 &&
          !fake->engine->sessions().jobs_outstanding()) {
        return;
      }
    }
    FAIL() << "it never settles: " << fake->engine->live_requests() << " calls, jobs "
           << fake->engine->sessions().jobs_outstanding() << ", waiting "
           << fake->engine->stats().waiting.value() << ", running "
           << fake->engine->stats().running.value() << ", in slots "
           << fake->engine->stats().slots_used.value();
  }

  // The process dies; what was out may be on disk or not.
  void Kill() {
    std::map<std::string, std::vector<Tokens>> may_be;  // commits that nobody was told of
    for (auto& sink : calls) {
      if (sink->status.has_value() || !sink->started) continue;
      if (sink->request.commit) may_be[sink->request.session_id].push_back(HistoryOf(*sink));
    }
    // Some of what was out had been done.
    for (auto& job : jobs) {
      if (Below(2)) RunStoreJob(store.get(), job.get());
    }
    Bury();
    reused += fake->engine->stats().prefix_hits.value();
    fake.reset();
    store.reset();
    files.Restart();
    calls.clear();
    dying = false;
    Boot();
    for (auto it = sessions.begin(); it != sessions.end();) {
      if (Recover(it->first, &it->second, may_be[it->first])) {
        ++it;
      } else {
        it = sessions.erase(it);
      }
    }
    unsure.clear();
  }

  bool Recover(const std::string& id, RefSession* ref, const std::vector<Tokens>& may_be) {
    std::optional<absl::StatusOr<ExportedState>> out;
    fake->engine->sessions().Export(
        "", id, "", [&](absl::StatusOr<ExportedState> s) { out.emplace(std::move(s)); });
    for (int i = 0; i < 100 && !out.has_value(); ++i) RunJobs(true);
    EXPECT_TRUE(out.has_value());
    if (!out.has_value()) return false;
    if (!out->ok()) {
      // A disk that fails at times may fail here; then it is looked at again at its next use.
      EXPECT_TRUE(ref->deleting || faults) << id << ": " << out->status();
      return false;
    }
    const auto matches = [&](const Tokens& history) {
      const ExportedState& state = **out;
      if (state.info.position != static_cast<int64_t>(history.size())) return false;
      if (history.empty()) return true;
      uint64_t hash;
      std::memcpy(&hash, state.data->data(), sizeof hash);
      return hash == FakeBackend::HashOf({history.begin(), history.end() - 1}) &&
             state.info.last_token == history.back();
    };
    std::optional<Tokens> found;
    for (size_t i = ref->durable; i < ref->versions.size(); ++i) {
      if (matches(ref->versions[i].history)) found = ref->versions[i].history;
    }
    for (const Tokens& history : may_be) {
      if (matches(history)) found = history;
    }
    EXPECT_TRUE(found.has_value())
        << id << " is at " << (*out)->info.position << ", not among what may be there";
    if (!found.has_value()) return false;
    ref->versions = {{(*out)->session.etag, *found}};
    ref->durable = 0;
    ref->deleting = false;
    return true;
  }

  // ---- What is asked ----

  static Tokens HistoryOf(const SimSink& sink) {
    Tokens history = sink.base;
    history.insert(history.end(), sink.request.prompt.begin(), sink.request.prompt.end());
    const auto it = sink.tokens.find(0);
    if (it != sink.tokens.end())
      history.insert(history.end(), it->second.begin(), it->second.end());
    return history;
  }

  std::string AnySession() {
    if (sessions.empty() || Below(50) == 0) return "absent";
    auto it = sessions.begin();
    std::advance(it, Below(sessions.size()));
    return it->first;
  }

  void Allow(const absl::Status& status, std::set<absl::StatusCode> codes) {
    codes.insert({absl::StatusCode::kOk, absl::StatusCode::kResourceExhausted});
    if (faults || dying) codes.insert(absl::StatusCode::kUnavailable);
    EXPECT_EQ(codes.count(status.code()), 1u) << status;
  }

  void NewSession() {
    const std::string id = absl::StrCat("s", next_id++);
    fake->engine->sessions().Create("", {.id = id}, [this, id](absl::StatusOr<SessionInfo> info) {
      Allow(info.status(), {});
      if (info.ok()) sessions[id].versions.push_back({info->etag, {}});
    });
  }

  void ForkSession() {
    const std::string parent = AnySession();
    const std::string id = absl::StrCat("s", next_id++);
    fake->engine->sessions().Fork(
        "", parent, "", {.id = id}, [this, id, parent](absl::StatusOr<SessionInfo> info) {
          Allow(info.status(), {absl::StatusCode::kNotFound});
          if (!info.ok() || dying) return;
          const auto it = graves.count(parent) ? graves.find(parent) : graves.end();
          const Tokens& from = it != graves.end() ? it->second : Now(parent).history;
          ASSERT_GE(static_cast<int64_t>(from.size()), info->position);
          sessions[id].versions.push_back(
              {info->etag, {from.begin(), from.begin() + info->position}});
        });
  }

  void MoveSession() {  // export, then import under another name
    const std::string from = AnySession();
    const std::string id = absl::StrCat("s", next_id++);
    fake->engine->sessions().Export(
        "", from, "", [this, id, from](absl::StatusOr<ExportedState> state) {
          Allow(state.status(), {absl::StatusCode::kNotFound});
          if (!state.ok() || dying) return;
          Tokens history = graves.count(from) ? graves[from] : Now(from).history;
          ASSERT_GE(static_cast<int64_t>(history.size()), state->info.position);
          history.resize(state->info.position);
          fake->engine->sessions().Import(
              "", {.id = id}, state->info, state->data == nullptr ? StateData() : *state->data,
              [this, id, history](absl::StatusOr<SessionInfo> info) {
                Allow(info.status(), {});
                if (info.ok()) sessions[id].versions.push_back({info->etag, history});
              });
        });
  }

  void UpdateSession() {
    const std::string id = AnySession();
    SessionChange change;
    change.labels = {{"k", absl::StrCat(rng())}};
    fake->engine->sessions().Update(
        "", id, "", change, [this, id](absl::StatusOr<SessionInfo> info) {
          Allow(info.status(), {absl::StatusCode::kNotFound});
          if (!info.ok() || !sessions.count(id)) return;
          // What is on disk is what it was when the write began, or later.
          sessions[id].versions.push_back({info->etag, Now(id).history});
        });
  }

  void DeleteSession() {
    const std::string id = AnySession();
    if (!sessions.count(id)) return;
    sessions[id].deleting = true;
    fake->engine->sessions().Delete("", id, "", [this, id](absl::Status status) {
      Allow(status, {absl::StatusCode::kNotFound});
      if (dying) return;
      if (status.ok() || absl::IsNotFound(status)) {
        if (sessions.count(id)) graves[id] = Now(id).history;
        sessions.erase(id);
      }
    });
  }

  void GetSession() {
    const std::string id = AnySession();
    fake->engine->sessions().Get("", id, [this, id](absl::StatusOr<SessionInfo> info) {
      Allow(info.status(), {absl::StatusCode::kNotFound});
      if (!info.ok() || !sessions.count(id) || dying) return;
      EXPECT_EQ(info->etag, Now(id).etag) << id;
      EXPECT_EQ(info->position, static_cast<int64_t>(Now(id).history.size())) << id;
      if (info->durable) sessions[id].durable = sessions[id].versions.size() - 1;
    });
  }

  void ListSessions() {
    fake->engine->sessions().List("", 5, "", {}, [this](absl::StatusOr<SessionPage> page) {
      Allow(page.status(), {});
      if (!page.ok() || dying) return;
      for (const SessionInfo& info : page->sessions) {
        if (!sessions.count(info.id)) continue;
        // A page that waits for records to be read may say what was a moment ago.
        EXPECT_LE(info.position, static_cast<int64_t>(Now(info.id).history.size())) << info.id;
      }
    });
  }

  void Submit() {
    Request request;
    request.session_id = AnySession();
    // Some begin alike: with no history, the prefix cache may have it.
    for (size_t i = Below(3) * Below(24); i > 0; --i) {
      request.prompt.push_back(3 + static_cast<int32_t>(request.prompt.size()));
    }
    for (size_t i = Below(12); i > 0; --i) {
      request.prompt.push_back(static_cast<int32_t>(3 + Below(kVocab - 3)));
    }
    request.seed = rng();
    request.stop.max_new_tokens = static_cast<int32_t>(Below(14));
    request.stop.ignore_eos = Below(2);
    if (Below(4) == 0) {
      for (int32_t id = 0; id < kVocab; id += 16) request.stop.token_ids.push_back(id);
    }
    request.output.text = Below(2);
    request.output.token_ids = true;
    request.on_conflict = static_cast<OnConflict>(Below(3));
    request.durable = Below(3) == 0;
    if (Below(5) == 0) {
      request.commit = false;
      request.durable = false;
      request.n = 1 + static_cast<int32_t>(Below(2));
    }
    if (Below(8) == 0) {
      request.deadline = fake->clock.Now() + absl::Milliseconds(Below(60));
    }
    if (Below(8) == 0) request.stop.time_limit = absl::Milliseconds(Below(60));
    if (Below(10) == 0) request.etag = "old";
    auto sink = std::make_shared<SimSink>(this, request);
    calls.push_back(sink);
    sink->id = fake->engine->Submit(std::move(request), sink);
  }

  void Event() {
    ++events;
    switch (Below(24)) {
      case 0:
        if (sessions.size() < 30) NewSession();
        break;
      case 1:
        if (sessions.size() < 30) ForkSession();
        break;
      case 2:
        if (sessions.size() < 30) MoveSession();
        break;
      case 3:
        UpdateSession();
        break;
      case 4:
        if (Below(3) == 0) DeleteSession();
        break;
      case 5:
        GetSession();
        break;
      case 6:
        ListSessions();
        break;
      case 7:
      case 8:
      case 9:
        if (calls.size() < 24) Submit();
        break;
      case 10:
        if (!calls.empty() && Below(3) == 0) {
          const auto sink = calls[Below(calls.size())];
          sink->cancelled = true;
          fake->engine->Cancel(sink->id, absl::CancelledError());
        }
        break;
      case 11:
        if (!calls.empty()) {
          const auto sink = calls[Below(calls.size())];
          sink->room = sink->room == 0 ? 1 << 20 : 0;
        }
        break;
      case 12:
        if (Below(60) == 0) Kill();
        break;
      case 13:
      case 14:
        RunJobs(false);
        break;
      default:
        fake->engine->Step();
        EXPECT_LE(fake->engine->stats().host_states.value(), host_states);
        fake->clock.Advance(absl::Milliseconds(Below(8) == 0 ? 1200 : Below(5)));
    }
    for (size_t i = 0; i < calls.size();) {
      if (calls[i]->status.has_value()) {
        calls.erase(calls.begin() + static_cast<int64_t>(i));
      } else {
        ++i;
      }
    }
  }

  Told& Now(const std::string& id) { return sessions.at(id).versions.back(); }

  void Run(int64_t num_events) {
    for (int64_t i = 0; i < num_events && !testing::Test::HasFailure(); ++i) Event();
    if (testing::Test::HasFailure()) return Bury();
    Settle();
    calls.clear();
    for (auto& [id, ref] : sessions) {
      if (ref.deleting) continue;
      fake->engine->sessions().Get("", id, [&, name = id](absl::StatusOr<SessionInfo> info) {
        if (!info.ok()) return;
        EXPECT_EQ(info->etag, Now(name).etag) << name;
      });
    }
    const EngineStats& stats = fake->engine->stats();
    RunJobs(true);
    EXPECT_EQ(stats.slots_used.value(), 0);
    if (testing::Test::HasFailure()) return Bury();
    Kill();
    Bury();
  }

  // An engine wants its calls closed before it goes; the disk answers no more.
  void Bury() {
    dying = true;
    for (auto& sink : calls) {
      if (!sink->status.has_value()) fake->engine->Cancel(sink->id, absl::CancelledError());
    }
    for (int i = 0; i < 1000 && (i < 2 || fake->engine->live_requests() > 0); ++i) {
      fake->engine->Step();
      for (auto& job : fake->engine->sessions().TakeJobs()) jobs.push_back(std::move(job));
      for (auto& job : std::exchange(jobs, {})) {
        job->status = absl::UnavailableError("the process is gone");
        fake->engine->sessions().JobDone(std::move(job));
      }
    }
  }

  const uint64_t seed;
  std::mt19937_64 rng;
  std::mt19937_64 ids{seed * 7919 + 1};
  int32_t slots = 0;
  int64_t host_states = 0;
  int64_t disk_states = 0;
  bool faults = false;
  bool dying = false;
  FakeFiles files;
  std::unique_ptr<SessionStore> store;
  std::unique_ptr<FakeEngine> fake;
  std::vector<std::unique_ptr<StoreJob>> jobs;
  std::vector<std::shared_ptr<SimSink>> calls;
  std::map<std::string, RefSession> sessions;
  std::map<std::string, Tokens> graves;  // of deleted ones: forks of them may still be told
  std::set<std::string> unsure;
  int64_t next_id = 0;
  int64_t events = 0;
  uint64_t reused = 0;  // prompt tokens
};

void SimSink::Push(TokenEvent event) {
  ASSERT_FALSE(status.has_value());
  const std::string& session_id = request.session_id;
  if (std::holds_alternative<StartedEvent>(event)) {
    started = true;
    if (sim->sessions.count(session_id)) {
      base = sim->Now(session_id).history;
    } else if (sim->graves.count(session_id)) {
      // A call that only reads goes on from what it was given when its session was deleted.
      EXPECT_FALSE(request.commit) << session_id;
      base = sim->graves[session_id];
    }
  } else if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
    Tokens& own = tokens[delta->index];
    for (int32_t token : delta->token_ids) {
      Tokens history = base;
      history.insert(history.end(), request.prompt.begin(), request.prompt.end());
      history.insert(history.end(), own.begin(), own.end());
      EXPECT_EQ(token, FakeBackend::NextToken(history, kVocab, request.seed,
                                              static_cast<uint32_t>(delta->index), history.size()))
          << session_id << " at " << history.size();
      own.push_back(token);
    }
  } else if (const auto* end = std::get_if<FinishedEvent>(&event)) {
    if (end->session == nullptr) return;
    EXPECT_TRUE(request.commit);
    const Tokens history = Simulation::HistoryOf(*this);
    EXPECT_EQ(end->session->position, static_cast<int64_t>(history.size()));
    if (!sim->sessions.count(session_id) || sim->dying) return;
    RefSession& ref = sim->sessions[session_id];
    EXPECT_EQ(ref.versions.back().history, base) << "somebody else has written";
    ref.versions.push_back({end->session->etag, history});
    if (request.durable || end->session->durable) ref.durable = ref.versions.size() - 1;
  }
}

void SimSink::Close(absl::Status s) {
  ASSERT_FALSE(status.has_value());
  std::set<absl::StatusCode> codes = {absl::StatusCode::kNotFound, absl::StatusCode::kAborted,
                                      absl::StatusCode::kInvalidArgument,
                                      absl::StatusCode::kCancelled};
  if (request.deadline != absl::InfiniteDuration() ||
      request.stop.time_limit != absl::InfiniteDuration()) {
    codes.insert(absl::StatusCode::kDeadlineExceeded);
  }
  sim->Allow(s, codes);
  if (absl::IsAborted(s)) {
    EXPECT_TRUE(request.etag == "old" || request.on_conflict == OnConflict::kFail) << s;
  }
  status = std::move(s);
}

TEST(SessionSimulation, EverySessionIsItsHistory) {
  const char* one = std::getenv("SLUICE_SIM_SEED");
  const char* seconds = std::getenv("SLUICE_SIM_SECONDS");
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  const double limit = seconds != nullptr ? std::atof(seconds) : 10.0;
  int64_t events = 0;
  uint64_t reused = 0;
  const uint64_t first = one != nullptr ? std::strtoull(one, nullptr, 10) : 1;
  uint64_t seed = first;
  for (; elapsed() < limit && !HasFailure(); ++seed) {
    SCOPED_TRACE(absl::StrCat("SLUICE_SIM_SEED=", seed));
    Simulation simulation(seed);
    simulation.Run(1500);
    events += simulation.events;
    reused += simulation.reused;
    if (HasFailure())
      std::fprintf(stderr, "failed with SLUICE_SIM_SEED=%llu\n",
                   static_cast<unsigned long long>(seed));
    if (one != nullptr) break;
  }
  std::printf("%lld events of %llu seeds, %.0f a minute; %llu prompt tokens reused\n",
              static_cast<long long>(events), static_cast<unsigned long long>(seed - first),
              events * 60.0 / elapsed(), static_cast<unsigned long long>(reused));
}

}  // namespace
}  // namespace sluice
