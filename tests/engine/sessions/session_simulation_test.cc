// Admission, tenants, sessions, calls, store and device driven from one seed in one thread, against
// a reference that knows each session's history of tokens, the fake model's definition and who is
// let in, nothing else. The disk is full or broken at times, the process dies, the power goes, the
// device breaks, rows are not finite.
//
// The fake model's state is a hash of its tokens, whatever spec it is told of, so that a list of
// specs would take the same steps of the engine again. What differs from spec to spec is the bytes
// of the states that move: session_identity_test.cc is the seeded simulation over each of them
// (tests/fakes/spec_models.h), on the CPU backend.
//
// A failure prints its seed: SLUICE_SIM_SEED=N runs that one alone; SLUICE_SIM_SECONDS says for how
// long.

#include <algorithm>
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
#include "server/core/admission.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/fake_files.h"

namespace sluice {
namespace {

constexpr int64_t kVocab = 4096;
constexpr int32_t kPoison = 4000;  // a row that has seen this token is not finite
using Tokens = std::vector<int32_t>;

bool IsPoisoned(const Tokens& tokens, size_t count) {
  return std::find(tokens.begin(), tokens.begin() + static_cast<int64_t>(count), kPoison) !=
         tokens.begin() + static_cast<int64_t>(count);
}

// The events that have happened.
struct Tally {
  uint64_t events = 0, reused = 0, admitted = 0, not_admitted = 0, no_room = 0, disk_errors = 0;
  uint64_t not_finite = 0, device_faults = 0, crashes = 0, power_losses = 0, late = 0, spills = 0;
};

// The answers that the session's owner has been given, in order.
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
  bool queued = true;  // has not given its first output
  Permit permit;
  std::optional<absl::Status> status;

  // The tokens that sequence `index` goes on from.
  Tokens HistoryOf(int32_t index) const {
    Tokens history = base;
    history.insert(history.end(), request.prompt.begin(), request.prompt.end());
    const auto it = tokens.find(index);
    if (it != tokens.end()) history.insert(history.end(), it->second.begin(), it->second.end());
    return history;
  }
  void LeaveQueue() {
    queued = false;
    permit.LeaveQueue();
  }
};

struct Simulation {
  Simulation(uint64_t s, Tally* t) : seed(s), tally(t), rng(s) {
    slots = 2 + Below(4);
    host_states = slots + 2 + Below(12);
    disk_states = Below(2) == 0 ? 60 : 4 + Below(12);
    faults = Below(3) == 0;
    device_faults = Below(3) == 0;
    limits.max_streams = 6 + static_cast<int64_t>(Below(30));
    limits.max_queued_requests = 3 + static_cast<int64_t>(Below(20));
    limits.max_queued_tokens = 40 + static_cast<int64_t>(Below(600));
    for (const char* name : {"", "red", "blue"}) {
      Tenant tenant;
      tenant.name = name;
      tenant.limits.max_streams = 2 + static_cast<int64_t>(Below(20));
      tenant.limits.max_queued_requests = 1 + static_cast<int64_t>(Below(12));
      tenant.limits.max_queued_tokens = 20 + static_cast<int64_t>(Below(300));
      tenant.limits.weight = 1 + static_cast<int32_t>(Below(4));
      if (Below(3) == 0) tenant.limits.inter_token = absl::Milliseconds(Below(20));
      tenants.push_back(tenant);
    }
    Boot();
  }

  size_t Below(size_t n) { return rng() % n; }

  void Boot() {
    auto opened = SessionStore::Open(&files, "/d", {"model", MakeStateTable(FakeSpec())});
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
    fake->backend.set_poison_token(kPoison);
    admission = std::make_unique<Admission>(limits, &fake->clock);
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
    fake->device.FailWork(-1);
    if (fake->device.failed()) Kill();
    files.SetFull(false);
    files.SetBroken(false);
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
    std::map<std::string, std::vector<Tokens>> may_be = std::exchange(unsure, {});
    for (auto& sink : calls) {
      if (sink->status.has_value() || !sink->started) continue;
      if (sink->request.commit) may_be[sink->request.session_id].push_back(sink->HistoryOf(0));
    }
    // Some of what was out had been done, one job perhaps in part.
    for (auto& job : jobs) {
      if (Below(8) == 0) files.DieAt(static_cast<int64_t>(Below(24)));
      if (Below(2)) RunStoreJob(store.get(), job.get());
    }
    tally->device_faults += fake->device.failed();
    Bury();
    Count();
    calls.clear();
    admission.reset();
    fake.reset();
    store.reset();
    if (Below(2)) {
      files.Restart();
      ++tally->crashes;
    } else {
      files.PowerLoss(rng());
      ++tally->power_losses;
    }
    dying = false;
    Boot();
    for (auto it = sessions.begin(); it != sessions.end();) {
      if (Recover(it->first, &it->second, may_be[it->first])) {
        ++it;
      } else {
        it = sessions.erase(it);
      }
    }
  }

  void Count() {
    const EngineStats& stats = fake->engine->stats();
    tally->reused += stats.prefix_hits.value();
    tally->no_room += stats.room_refusals.value();
    tally->disk_errors += stats.store_errors.value();
    tally->spills += stats.spills.value();
  }

  static std::string Lengths(const RefSession& ref, const std::vector<Tokens>& may_be) {
    std::string text;
    for (size_t i = 0; i < ref.versions.size(); ++i) {
      absl::StrAppend(&text, " ", ref.versions[i].history.size(),
                      i == ref.durable ? " (durable)" : "");
    }
    for (const Tokens& history : may_be) absl::StrAppend(&text, " perhaps ", history.size());
    return text;
  }

  bool Recover(const std::string& id, RefSession* ref, const std::vector<Tokens>& may_be) {
    std::optional<absl::StatusOr<ExportedState>> out;
    fake->engine->sessions().Export(
        TenantOf(id), id, "", [&](absl::StatusOr<ExportedState> s) { out.emplace(std::move(s)); });
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
    EXPECT_TRUE(found.has_value()) << id << " is at " << (*out)->info.position
                                   << ", not among what may be there:" << Lengths(*ref, may_be);
    if (!found.has_value()) return false;
    ref->versions = {{(*out)->session.etag, *found}};
    ref->durable = 0;
    ref->deleting = false;
    return true;
  }

  // ---- What is asked ----

  // Part of a session's name.
  static std::string TenantOf(const std::string& id) { return id.substr(id.find('@') + 1); }
  std::string NewId(const std::string& tenant) { return absl::StrCat("s", next_id++, "@", tenant); }
  const Tenant& AnyTenant() { return tenants[Below(tenants.size())]; }

  std::string AnySession() {
    if (sessions.empty() || Below(50) == 0) return "absent@";
    auto it = sessions.begin();
    std::advance(it, Below(sessions.size()));
    return unsure.count(it->first) ? "absent@" : it->first;
  }

  void Allow(const absl::Status& status, std::set<absl::StatusCode> codes) {
    codes.insert({absl::StatusCode::kOk, absl::StatusCode::kResourceExhausted});
    if (faults || dying || fake->device.failed()) codes.insert(absl::StatusCode::kUnavailable);
    EXPECT_EQ(codes.count(status.code()), 1u) << status;
  }

  void NewSession() {
    const std::string id = NewId(AnyTenant().name);
    fake->engine->sessions().Create(TenantOf(id), {.id = id},
                                    [this, id](absl::StatusOr<SessionInfo> info) {
                                      Allow(info.status(), {});
                                      if (info.ok())
                                        sessions[id].versions.push_back({info->etag, {}});
                                    });
  }

  void ForkSession() {
    const std::string parent = AnySession();
    const std::string id = NewId(TenantOf(parent));
    fake->engine->sessions().Fork(
        TenantOf(parent), parent, "", {.id = id},
        [this, id, parent](absl::StatusOr<SessionInfo> info) {
          Allow(info.status(), {absl::StatusCode::kNotFound});
          if (!info.ok() || dying || unsure.count(parent)) return;
          const auto it = graves.count(parent) ? graves.find(parent) : graves.end();
          const Tokens& from = it != graves.end() ? it->second : Now(parent).history;
          ASSERT_GE(static_cast<int64_t>(from.size()), info->position);
          sessions[id].versions.push_back(
              {info->etag, {from.begin(), from.begin() + info->position}});
        });
  }

  void MoveSession() {  // export, then import under another name
    const std::string from = AnySession();
    const std::string id = NewId(AnyTenant().name);
    fake->engine->sessions().Export(
        TenantOf(from), from, "", [this, id, from](absl::StatusOr<ExportedState> state) {
          Allow(state.status(), {absl::StatusCode::kNotFound});
          if (!state.ok() || dying || unsure.count(from)) return;
          Tokens history = graves.count(from) ? graves[from] : Now(from).history;
          ASSERT_GE(static_cast<int64_t>(history.size()), state->info.position);
          history.resize(state->info.position);
          fake->engine->sessions().Import(
              TenantOf(id), {.id = id}, state->info,
              state->data == nullptr ? StateData() : *state->data,
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
        TenantOf(id), id, "", change, [this, id](absl::StatusOr<SessionInfo> info) {
          Allow(info.status(), {absl::StatusCode::kNotFound});
          if (!info.ok() || !sessions.count(id) || unsure.count(id)) return;
          // The disk has what was there when the write began, or something later.
          sessions[id].versions.push_back({info->etag, Now(id).history});
        });
  }

  void DeleteSession() {
    const std::string id = AnySession();
    if (!sessions.count(id)) return;
    sessions[id].deleting = true;
    fake->engine->sessions().Delete(TenantOf(id), id, "", [this, id](absl::Status status) {
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
    if (Below(8) == 0) {  // somebody else's
      const std::string other = TenantOf(id) == "red" ? "blue" : "red";
      fake->engine->sessions().Get(
          other, id, [](absl::StatusOr<SessionInfo> info) { EXPECT_FALSE(info.ok()); });
      return;
    }
    fake->engine->sessions().Get(TenantOf(id), id, [this, id](absl::StatusOr<SessionInfo> info) {
      Allow(info.status(), {absl::StatusCode::kNotFound});
      if (!info.ok() || !sessions.count(id) || dying || unsure.count(id)) return;
      EXPECT_EQ(info->etag, Now(id).etag) << id;
      EXPECT_EQ(info->position, static_cast<int64_t>(Now(id).history.size())) << id;
      if (info->durable) sessions[id].durable = sessions[id].versions.size() - 1;
    });
  }

  void ListSessions() {
    const std::string tenant = AnyTenant().name;
    const auto listed = [this, tenant](absl::StatusOr<SessionPage> page) {
      Allow(page.status(), {});
      if (!page.ok() || dying) return;
      for (const SessionInfo& info : page->sessions) {
        EXPECT_EQ(TenantOf(info.id), tenant);
        if (!sessions.count(info.id) || unsure.count(info.id)) continue;
        // A page that waits for records to be read may say what was a moment ago.
        EXPECT_LE(info.position, static_cast<int64_t>(Now(info.id).history.size())) << info.id;
      }
    };
    fake->engine->sessions().List(tenant, 5, "", {}, listed);
  }

  // True if the bounds let one more in, by counting who is in.
  bool FitsIn(int64_t prompt_tokens, const Tenant* tenant) {
    AdmissionUsage usage;
    for (const auto& sink : calls) {
      if (sink->status.has_value()) continue;
      if (tenant != nullptr && sink->request.tenant != tenant->name) continue;
      ++usage.permits;
      if (!sink->queued) continue;
      ++usage.queued_requests;
      usage.queued_tokens += static_cast<int64_t>(sink->request.prompt.size());
    }
    AdmissionLimits bounds = limits;
    if (tenant != nullptr) {
      bounds = {tenant->limits.max_streams, tenant->limits.max_queued_requests,
                tenant->limits.max_queued_tokens};
    }
    return usage.permits < bounds.max_streams &&
           usage.queued_requests < bounds.max_queued_requests &&
           (usage.queued_requests == 0 ||
            usage.queued_tokens + prompt_tokens <= bounds.max_queued_tokens);
  }

  std::optional<Permit> Admit(int64_t prompt_tokens, const Tenant& tenant) {
    const bool fits = FitsIn(prompt_tokens, nullptr) && FitsIn(prompt_tokens, &tenant);
    absl::Duration retry;
    absl::StatusOr<Permit> permit = admission->Admit(prompt_tokens, tenant, &retry);
    EXPECT_EQ(permit.ok(), fits) << permit.status();
    ++(fits ? tally->admitted : tally->not_admitted);
    if (permit.ok()) return *std::move(permit);
    EXPECT_TRUE(absl::IsResourceExhausted(permit.status()));
    EXPECT_GT(retry, absl::ZeroDuration());
    return {};
  }

  void Submit() {
    Request request;
    request.session_id = AnySession();
    request.tenant = TenantOf(request.session_id);
    // Some begin alike: with no history, the prefix cache may have it.
    for (size_t i = Below(3) * Below(24); i > 0; --i) {
      request.prompt.push_back(3 + static_cast<int32_t>(request.prompt.size()));
    }
    for (size_t i = Below(12); i > 0; --i) {
      request.prompt.push_back(static_cast<int32_t>(3 + Below(kVocab - 3)));
    }
    if (Below(30) == 0) request.prompt.push_back(kPoison);
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
    if (Below(4) == 0) {
      request.session_id.clear();
      request.etag.clear();
      request.commit = request.durable = false;
      request.tenant = AnyTenant().name;
      if (request.prompt.empty()) request.prompt.push_back(5);
    }
    if (request.stop.max_new_tokens == 0 && !request.commit) request.stop.max_new_tokens = 1;
    request.priority = static_cast<int32_t>(Below(3));
    const Tenant& tenant = *std::find_if(tenants.begin(), tenants.end(),
                                         [&](const Tenant& t) { return t.name == request.tenant; });
    request.tenant_weight = tenant.limits.weight;
    request.inter_token = tenant.limits.inter_token;
    auto permit = Admit(static_cast<int64_t>(request.prompt.size()), tenant);
    if (!permit.has_value()) return;
    auto sink = std::make_shared<SimSink>(this, request);
    sink->permit = *std::move(permit);
    calls.push_back(sink);
    sink->id = fake->engine->Submit(std::move(request), sink);
  }

  void Event() {
    ++tally->events;
    if (faults && Below(200) == 0) Below(2) ? files.SetFull(Below(2)) : files.SetBroken(Below(2));
    if (device_faults && Below(1500) == 0) {
      fake->device.FailWork(static_cast<int64_t>(Below(60)));
    }
    if (fake->device.told() && Below(10) == 0) Kill();
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
        if (calls.size() < 40) Submit();
        break;
      case 10:
        if (!calls.empty() && Below(3) == 0) {
          const auto sink = calls[Below(calls.size())];
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
      fake->engine->sessions().Get(TenantOf(id), id,
                                   [&, name = id](absl::StatusOr<SessionInfo> info) {
                                     if (!info.ok()) return;
                                     EXPECT_EQ(info->etag, Now(name).etag) << name;
                                   });
    }
    const EngineStats& stats = fake->engine->stats();
    RunJobs(true);
    EXPECT_EQ(stats.slots_used.value(), 0);
    EXPECT_EQ(admission->permits(), 0);
    EXPECT_EQ(admission->queued_requests(), 0);
    EXPECT_EQ(admission->queued_tokens(), 0);
    EXPECT_EQ(admission->active_tenants(), 0);
    if (testing::Test::HasFailure()) return Bury();
    Kill();
    Bury();
    Count();
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
  Tally* const tally;
  std::mt19937_64 rng;
  std::mt19937_64 ids{seed * 7919 + 1};
  int32_t slots = 0;
  int64_t host_states = 0;
  int64_t disk_states = 0;
  bool faults = false;  // of the disk
  bool device_faults = false;
  bool dying = false;
  AdmissionLimits limits;
  std::vector<Tenant> tenants;
  FakeFiles files;
  std::unique_ptr<SessionStore> store;
  std::unique_ptr<FakeEngine> fake;
  std::unique_ptr<Admission> admission;
  std::vector<std::unique_ptr<StoreJob>> jobs;
  std::vector<std::shared_ptr<SimSink>> calls;
  std::map<std::string, RefSession> sessions;
  std::map<std::string, Tokens> graves;  // of deleted ones: forks of them may still be told
  // Commits cut off by a fault of the device: the disk may have them or not.
  std::map<std::string, std::vector<Tokens>> unsure;
  int64_t next_id = 0;
};

void SimSink::Push(TokenEvent event) {
  ASSERT_FALSE(status.has_value());
  EXPECT_FALSE(sim->fake->device.told()) << "something of a device that has failed";
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
    return;
  }
  LeaveQueue();
  if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
    Tokens& own = tokens[delta->index];
    for (int32_t token : delta->token_ids) {
      const Tokens history = HistoryOf(delta->index);
      EXPECT_FALSE(IsPoisoned(history, history.size())) << session_id;
      EXPECT_EQ(token, FakeBackend::NextToken(history, kVocab, request.seed,
                                              static_cast<uint32_t>(delta->index), history.size()))
          << session_id << " at " << history.size();
      own.push_back(token);
    }
  } else if (const auto* end = std::get_if<FinishedEvent>(&event)) {
    const Tokens history = HistoryOf(end->index);
    if (end->reason == FinishReason::kError) {
      ++sim->tally->not_finite;
      EXPECT_TRUE(absl::IsInternal(end->status));
      EXPECT_TRUE(IsPoisoned(history, history.size()));
      EXPECT_EQ(end->session, nullptr);
    }
    if (end->session == nullptr) return;
    EXPECT_TRUE(request.commit);
    // The last token is not computed yet.
    EXPECT_FALSE(IsPoisoned(history, history.size() - 1));
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
  const Tokens history = HistoryOf(0);
  // A prompt that is only taken in.
  if (request.stop.max_new_tokens == 0 && IsPoisoned(history, history.size())) {
    codes.insert(absl::StatusCode::kInternal);
    sim->tally->not_finite += absl::IsInternal(s);
  }
  sim->Allow(s, codes);
  sim->tally->late += absl::IsDeadlineExceeded(s);
  if (absl::IsAborted(s)) {
    EXPECT_TRUE(request.etag == "old" || request.on_conflict == OnConflict::kFail) << s;
  }
  if (sim->fake->device.told()) {
    EXPECT_FALSE(s.ok());
    if (request.commit && started) sim->unsure[request.session_id].push_back(history);
  }
  permit.Release();
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
  Tally tally;
  const uint64_t first = one != nullptr ? std::strtoull(one, nullptr, 10) : 1;
  uint64_t seed = first;
  for (; elapsed() < limit && !HasFailure(); ++seed) {
    SCOPED_TRACE(absl::StrCat("SLUICE_SIM_SEED=", seed));
    Simulation simulation(seed, &tally);
    simulation.Run(1500);
    if (HasFailure())
      std::fprintf(stderr, "failed with SLUICE_SIM_SEED=%llu\n",
                   static_cast<unsigned long long>(seed));
    if (one != nullptr) break;
  }
  const auto n = [](uint64_t count) { return static_cast<unsigned long long>(count); };
  std::printf(
      "%llu events of %llu seeds, %.0f a minute: %llu calls let in, %llu not; %llu without room, "
      "%llu too late, %llu not finite, %llu spilled, %llu errors of the disk, %llu crashes, %llu "
      "losses of power, %llu broken devices; %llu prompt tokens reused\n",
      n(tally.events), n(seed - first), static_cast<double>(tally.events) * 60.0 / elapsed(),
      n(tally.admitted), n(tally.not_admitted), n(tally.no_room), n(tally.late),
      n(tally.not_finite), n(tally.spills), n(tally.disk_errors), n(tally.crashes),
      n(tally.power_losses), n(tally.device_faults), n(tally.reused));
  if (one != nullptr || seed - first < 50) return;
  for (uint64_t count :
       {tally.admitted, tally.not_admitted, tally.no_room, tally.late, tally.not_finite,
        tally.spills, tally.disk_errors, tally.crashes, tally.power_losses, tally.device_faults}) {
    EXPECT_GT(count, 0u);
  }
}

}  // namespace
}  // namespace sluice
