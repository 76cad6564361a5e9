// Two or three daemons on one directory, driven from one seed: random calls on shared sessions,
// deaths among them, against a reference that knows each session's acknowledged history.
//
// Without a death nothing that was acknowledged is lost. A death may take what the dead daemon
// acknowledged and was not asked to keep, the last of it only; what was durable stays. A failure
// prints its seed: SLUICE_SIM_SEED=N runs that one alone; SLUICE_SIM_SECONDS says for how long.

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
#include "gtest/gtest.h"
#include "tests/fakes/shared_daemons.h"

namespace sluice {
namespace {

using Tokens = std::vector<int32_t>;

struct Version {
  std::string etag;
  Tokens history;
  size_t daemon = 0;  // that acknowledged it
  bool durable = false;
};
struct RefSession {
  std::vector<Version> versions;
  bool deleting = false;
};
struct Tally {
  uint64_t events = 0, commits = 0, waits = 0, aborted = 0, cancelled = 0, kills = 0, lost = 0;
  uint64_t moved = 0;  // commits on another daemon than the one before
};

struct Simulation;

struct SimSink : TokenSink {
  SimSink(Simulation* s, Request r, size_t d) : sim(s), request(std::move(r)), daemon(d) {}
  int32_t Room() const override { return 1 << 20; }
  void Push(TokenEvent event) override;
  void Close(absl::Status s) override;
  Tokens History() const {
    Tokens history = base;
    history.insert(history.end(), request.prompt.begin(), request.prompt.end());
    history.insert(history.end(), tokens.begin(), tokens.end());
    return history;
  }

  Simulation* const sim;
  const Request request;
  const size_t daemon;
  bool started = false;
  Tokens base;
  Tokens tokens;
  std::optional<absl::Status> status;
};

struct Simulation {
  Simulation(uint64_t seed, Tally* t)
      : tally(t), rng(seed), daemons(2 + Below(2), Options()), kills(Below(3) != 0) {}

  size_t Below(size_t n) { return rng() % n; }

  SharedOptions Options() {
    SharedOptions options;
    options.slots = 2 + static_cast<int32_t>(Below(4));
    options.host_states = options.slots + 2 + static_cast<int64_t>(Below(12));
    if (Below(4) == 0) options.lock_slots = 1 + static_cast<int64_t>(Below(3));
    options.seed = rng();
    return options;
  }

  void Allow(const absl::Status& status, std::set<absl::StatusCode> codes) {
    codes.insert({absl::StatusCode::kOk, absl::StatusCode::kResourceExhausted});
    if (dying) codes.insert({absl::StatusCode::kUnavailable, absl::StatusCode::kCancelled});
    EXPECT_EQ(codes.count(status.code()), 1u) << status;
  }

  std::string AnySession() {
    if (sessions.empty()) return "absent";
    auto it = sessions.begin();
    std::advance(it, Below(sessions.size()));
    return it->first;
  }
  bool Lives(const std::string& id) { return !dying && sessions.count(id) > 0; }
  Version& Now(const std::string& id) { return sessions.at(id).versions.back(); }

  // ---- What is asked ----

  void Create(size_t i) {
    const std::string id = absl::StrCat("s", next_id++);
    daemons[i].sessions().Create("", {.id = id}, [this, id, i](absl::StatusOr<SessionInfo> info) {
      Allow(info.status(), {});
      if (info.ok() && !dying) sessions[id].versions.push_back({info->etag, {}, i, true});
    });
  }

  void Fork(size_t i) {
    const std::string parent = AnySession();
    const std::string id = absl::StrCat("s", next_id++);
    daemons[i].sessions().Fork(
        "", parent, "", {.id = id}, [this, parent, id, i](absl::StatusOr<SessionInfo> info) {
          // A session that is written all the while may be missed thrice.
          Allow(info.status(), {absl::StatusCode::kNotFound, absl::StatusCode::kAborted,
                                absl::StatusCode::kUnavailable});
          if (!info.ok() || !Lives(parent)) return;
          const Tokens& now = Now(parent).history;
          ASSERT_LE(info->position, static_cast<int64_t>(now.size()));
          const Tokens history(now.begin(), now.begin() + info->position);
          sessions[id].versions.push_back({info->etag, history, i, true});
        });
  }

  void Get(size_t i) {
    const std::string id = AnySession();
    // A reader must see what was acknowledged by now, and may see what comes meanwhile.
    const size_t least = Lives(id) ? Now(id).history.size() : 0;
    const uint64_t deaths = tally->kills;
    daemons[i].sessions().Get("", id, [=, this](absl::StatusOr<SessionInfo> info) {
      Allow(info.status(), {absl::StatusCode::kNotFound, absl::StatusCode::kUnavailable});
      if (!info.ok() || !Lives(id) || deaths != tally->kills) return;
      EXPECT_GE(info->position, static_cast<int64_t>(least)) << id;
      EXPECT_LE(info->position, static_cast<int64_t>(Now(id).history.size())) << id;
    });
  }

  void Update(size_t i) {
    const std::string id = AnySession();
    SessionChange change;
    change.labels = {{"k", absl::StrCat(rng())}};
    updates.insert({i, id});
    daemons[i].sessions().Update(
        "", id, "", change, [this, id, i](absl::StatusOr<SessionInfo> info) {
          Allow(info.status(), {absl::StatusCode::kNotFound, absl::StatusCode::kAborted});
          updates.erase({i, id});
          if (info.ok() && Lives(id)) {
            sessions[id].versions.push_back({info->etag, Now(id).history, i, true});
          }
        });
  }

  void Delete(size_t i) {
    const std::string id = AnySession();
    if (sessions.count(id) == 0) return;
    sessions[id].deleting = true;
    daemons[i].sessions().Delete("", id, "", [this, id](absl::Status status) {
      Allow(status, {absl::StatusCode::kNotFound, absl::StatusCode::kAborted});
      if (dying) return;
      if (status.ok() || absl::IsNotFound(status)) {
        sessions.erase(id);
      } else if (sessions.count(id) > 0) {
        sessions[id].deleting = false;
      }
    });
  }

  void List(size_t i) {
    daemons[i].sessions().List("", 5, "", {}, [this](absl::StatusOr<SessionPage> page) {
      Allow(page.status(), {});
      if (!page.ok() || dying) return;
      for (const SessionInfo& info : page->sessions) {
        if (sessions.count(info.id) == 0) continue;
        EXPECT_LE(info.position, static_cast<int64_t>(Now(info.id).history.size())) << info.id;
      }
    });
  }

  void Submit(size_t i) {
    Request request;
    request.session_id = AnySession();
    for (size_t n = 1 + Below(10); n > 0; --n) {
      request.prompt.push_back(static_cast<int32_t>(3 + Below(kVocab - 3)));
    }
    request.seed = rng();
    request.stop.max_new_tokens = static_cast<int32_t>(Below(3) == 0 ? Below(60) : Below(8));
    request.stop.ignore_eos = true;
    request.output.token_ids = true;
    request.on_conflict = static_cast<OnConflict>(Below(3));
    request.durable = Below(3) == 0;
    if (Below(6) == 0) {
      request.commit = request.durable = false;
      request.stop.max_new_tokens = std::max(1, request.stop.max_new_tokens);
    }
    if (Below(10) == 0) request.deadline = daemons.now() + absl::Milliseconds(Below(300));
    if (Below(12) == 0) request.etag = "old";
    auto sink = std::make_shared<SimSink>(this, request, i);
    calls.push_back(sink);
    daemons[i].Submit(std::move(request), sink);
  }

  // ---- A death ----

  void Kill(size_t i) {
    ++tally->kills;
    std::map<std::string, std::vector<Tokens>> may_be;
    for (const auto& sink : calls) {
      if (sink->daemon != i || sink->status.has_value() || !sink->started) continue;
      if (sink->request.commit) may_be[sink->request.session_id].push_back(sink->History());
    }
    if (Below(2)) daemons[i].RunUnheard(&daemons.files(), static_cast<int64_t>(Below(30)));
    for (const auto& [daemon, id] : updates) {
      if (daemon == i) unsure.insert(id);
    }
    dying = true;
    daemons.Kill(i);
    dying = false;
    for (auto it = sessions.begin(); it != sessions.end();) {
      it = Recover(i, it->first, &it->second, may_be[it->first]) ? std::next(it)
                                                                 : sessions.erase(it);
    }
  }

  // Reads what the disk has of a session that the dead daemon may have had.
  bool Recover(size_t dead, const std::string& id, RefSession* ref,
               const std::vector<Tokens>& may_be) {
    std::vector<Version>& versions = ref->versions;
    size_t least = versions.size() - 1;
    while (least > 0 && versions[least].daemon == dead && !versions[least].durable) --least;
    if (least + 1 == versions.size() && may_be.empty() && !ref->deleting) return true;
    SessionStore& store = daemons[dead].store();
    const absl::StatusOr<SessionRecord> record = store.ReadRecord("", id);
    if (absl::IsNotFound(record.status()) && ref->deleting) return false;
    EXPECT_TRUE(record.ok()) << id << ": " << record.status();
    if (!record.ok()) return false;
    const absl::StatusOr<StateData> data = store.ReadState(*record);
    EXPECT_TRUE(data.ok()) << id << ": " << data.status();
    if (!data.ok()) return false;
    const auto matches = [&](const Tokens& history) {
      if (record->info.position != static_cast<int64_t>(history.size())) return false;
      if (history.empty()) return true;
      uint64_t hash;
      std::memcpy(&hash, data->data(), sizeof hash);
      return hash == FakeBackend::HashOf({history.begin(), history.end() - 1}) &&
             record->info.last_token == history.back();
    };
    // A living daemon may have what it has not written yet.
    if (least + 1 == versions.size() && versions.back().daemon != dead) {
      for (const Tokens& history : may_be) {
        if (!matches(history) || matches(versions.back().history)) continue;
        versions.push_back({record->etag, history, dead, true});
        return true;
      }
      return true;
    }
    std::optional<size_t> found;
    for (size_t v = least; v < versions.size(); ++v) {
      if (matches(versions[v].history)) found = v;
    }
    if (found.has_value()) {
      tally->lost += versions.size() - 1 - *found;
      versions.resize(*found + 1);
      versions.back().etag = record->etag;
      versions.back().durable = true;
      return true;
    }
    for (const Tokens& history : may_be) {
      if (!matches(history)) continue;
      versions.push_back({record->etag, history, dead, true});
      return true;
    }
    ADD_FAILURE() << id << " is at " << record->info.position << ", told was "
                  << versions.back().history.size() << ", at least "
                  << versions[least].history.size();
    return false;
  }

  // ---- ----

  void Event() {
    ++tally->events;
    const size_t i = Below(daemons.size());
    switch (Below(30)) {
      case 0:
        if (sessions.size() < 6 || Below(8) == 0) Create(i);
        return;
      case 1:
        if (sessions.size() < 12) Fork(i);
        return;
      case 2:
      case 3:
        return Get(i);
      case 4:
        return Update(i);
      case 5:
        if (Below(6) == 0) Delete(i);
        return;
      case 6:
        return List(i);
      case 7:
      case 8:
      case 9:
      case 10:
        if (calls.size() < 12) Submit(i);
        return;
      case 11:
        if (kills && Below(30) == 0) Kill(i);
        return;
      case 12:
        return daemons.Advance(absl::Milliseconds(Below(8) == 0 ? 300 : Below(20)));
      default:
        break;
    }
    if (Below(2)) {
      daemons[i].engine().Step();
    } else {
      for (size_t n = Below(4); n > 0; --n) daemons[i].RunOneJob();
    }
    calls.erase(std::remove_if(calls.begin(), calls.end(),
                               [](const auto& sink) { return sink->status.has_value(); }),
                calls.end());
  }

  void Run(int events) {
    for (int n = 0; n < events && !testing::Test::HasFailure(); ++n) Event();
    if (!testing::Test::HasFailure()) Settle();
    dying = true;
    daemons.KillAll();
  }

  void Settle() {
    daemons.Until(
        [&] {
          return std::all_of(calls.begin(), calls.end(),
                             [](const auto& sink) { return sink->status.has_value(); });
        },
        absl::Seconds(100));
    for (int n = 0; n < 400; ++n) daemons.Turn();
    for (auto& [id, ref] : sessions) {
      for (size_t i = 0; i < daemons.size(); ++i) {
        daemons[i].sessions().Get("", id, [&, name = id](absl::StatusOr<SessionInfo> info) {
          ASSERT_TRUE(info.ok()) << name << ": " << info.status();
          if (unsure.count(name) == 0) {
            EXPECT_EQ(info->etag, Now(name).etag) << name;
          }
          EXPECT_EQ(info->position, static_cast<int64_t>(Now(name).history.size())) << name;
          EXPECT_TRUE(info->durable);
          EXPECT_FALSE(info->busy);
        });
      }
    }
    for (int n = 0; n < 400; ++n) daemons.Turn();
    daemons.Start();  // one that has nothing
    SessionLocks* locks = daemons[daemons.size() - 1].store().locks();
    EXPECT_FALSE(*locks->AnybodyAsks());
    for (auto& [id, ref] : sessions) {
      EXPECT_EQ(*locks->HolderOf({"", id}), SessionHolder::kNobody) << id;
    }
  }

  Tally* const tally;
  std::mt19937_64 rng;
  SharedDaemons daemons;
  const bool kills;
  bool dying = false;
  std::map<std::string, RefSession> sessions;
  std::vector<std::shared_ptr<SimSink>> calls;
  std::set<std::pair<size_t, std::string>> updates;  // that are out
  std::set<std::string> unsure;                      // an update of them was out at a death
  int64_t next_id = 0;
};

void SimSink::Push(TokenEvent event) {
  if (sim->dying) return;
  ASSERT_FALSE(status.has_value());
  const std::string& id = request.session_id;
  if (std::holds_alternative<StartedEvent>(event)) {
    started = true;
    if (sim->sessions.count(id) > 0) base = sim->Now(id).history;
    return;
  }
  // A session that was deleted under a call that reads has no reference any more.
  const bool known = sim->sessions.count(id) > 0;
  if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
    for (int32_t token : delta->token_ids) {
      const Tokens history = History();
      if (known && request.commit) {
        EXPECT_EQ(token, FakeBackend::NextToken(history, kVocab, request.seed, 0, history.size()))
            << id << " at " << history.size();
      }
      tokens.push_back(token);
    }
  } else if (const auto* end = std::get_if<FinishedEvent>(&event)) {
    if (end->session == nullptr || !known) return;
    RefSession& ref = sim->sessions[id];
    EXPECT_EQ(ref.versions.back().history, base) << id << ": somebody else has written";
    EXPECT_EQ(end->session->position, static_cast<int64_t>(History().size())) << id;
    ++sim->tally->commits;
    if (ref.versions.back().daemon != daemon) ++sim->tally->moved;
    ref.versions.push_back({end->session->etag, History(), daemon, request.durable});
  }
}

void SimSink::Close(absl::Status s) {
  status = s;
  if (sim->dying) return;
  std::set<absl::StatusCode> codes = {absl::StatusCode::kNotFound, absl::StatusCode::kCancelled};
  if (request.deadline != absl::InfiniteDuration()) {
    codes.insert(absl::StatusCode::kDeadlineExceeded);
  }
  // A call that only reads asks for the newest, as Get does.
  if (!request.commit) {
    codes.insert({absl::StatusCode::kUnavailable, absl::StatusCode::kAborted});
  }
  if (request.etag == "old" || request.on_conflict == OnConflict::kFail) {
    codes.insert(absl::StatusCode::kAborted);
  }
  sim->Allow(s, codes);
  sim->tally->aborted += absl::IsAborted(s);
  sim->tally->cancelled += absl::IsCancelled(s);
}

TEST(SharedSimulation, NothingAcknowledgedIsLost) {
  const char* one = std::getenv("SLUICE_SIM_SEED");
  const char* seconds = std::getenv("SLUICE_SIM_SECONDS");
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  const double limit = seconds != nullptr ? std::atof(seconds) : 8.0;
  Tally tally;
  const uint64_t first = one != nullptr ? std::strtoull(one, nullptr, 10) : 1;
  uint64_t seed = first;
  for (; elapsed() < limit && !HasFailure(); ++seed) {
    SCOPED_TRACE(absl::StrCat("SLUICE_SIM_SEED=", seed));
    Simulation(seed, &tally).Run(4000);
    if (HasFailure()) {
      std::fprintf(stderr, "failed with SLUICE_SIM_SEED=%llu\n",
                   static_cast<unsigned long long>(seed));
    }
    if (one != nullptr) break;
  }
  const auto n = [](uint64_t count) { return static_cast<unsigned long long>(count); };
  std::printf(
      "%llu events of %llu seeds: %llu commits, %llu of them on another daemon than the one "
      "before, %llu aborted, %llu cancelled, %llu deaths that took %llu commits\n",
      n(tally.events), n(seed - first), n(tally.commits), n(tally.moved), n(tally.aborted),
      n(tally.cancelled), n(tally.kills), n(tally.lost));
  if (one != nullptr || seed - first < 20) return;
  for (uint64_t count :
       {tally.commits, tally.moved, tally.aborted, tally.cancelled, tally.kills, tally.lost}) {
    EXPECT_GT(count, 0u);
  }
}

}  // namespace
}  // namespace sluice
