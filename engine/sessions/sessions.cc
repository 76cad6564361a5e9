#include "engine/sessions/sessions.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

// Another daemon's work on a session is over within these times, or the session is busy.
constexpr absl::Duration kUpdatePatience = absl::Seconds(5);
constexpr absl::Duration kDeletePatience = absl::Seconds(10);
constexpr absl::Duration kExpiryPatience = absl::Seconds(10);

// A job has the session, or wants it: what was done here is not on disk yet.
bool IsMoving(const Session& session) {
  return !session.changes.empty() || session.job_out || session.owned ||
         session.version != session.stored_version;
}

// `done`, but the first tries that lost a race try again: another daemon has moved the session on
// in the moment between a look at it and the use of what was seen.
template <typename T>
Done<T> Again(Done<T> done, std::function<void(Done<T>)> act, int tries = 3) {
  return [done = std::move(done), act = std::move(act), tries](absl::StatusOr<T> result) {
    if (tries <= 1 || !IsLostRace(result.status())) return done(std::move(result));
    act(Again<T>(done, act, tries - 1));
  };
}

}  // namespace

Sessions::Sessions(StateCache* states, const Clock* clock, EngineStats* stats, SessionsSetup setup)
    : setup_(std::move(setup)),
      context_{states, clock, stats, &setup_},
      table_(context_),
      queue_(&table_),
      expiry_(context_, &queue_),
      owners_(context_, &table_, &queue_),
      endings_(context_, &table_, &queue_, &expiry_, &owners_),
      reader_(context_, &table_, &queue_, &expiry_, &owners_, &endings_),
      writer_(context_, &table_, &queue_, &expiry_, &owners_, &endings_),
      fetcher_(context_, &table_, &queue_, &endings_),
      turns_(context_, &table_, &queue_, &expiry_, &owners_, &reader_, &fetcher_, &writer_),
      pages_(context_, &table_, &queue_, &owners_, &endings_) {
  reader_.set_on_live([this](Session* session) { turns_.StartNext(session); });
  for (const SessionName& name : setup_.index) {
    Session* session =
        table_.Insert({name.tenant, name.id}, SessionPhase::kUnread, /*indexed=*/true);
    session->generation = name.generation;
    queue_.EnqueueIdle(session);
    if (!setup_.shared) table_.CountUnread(session, true);  // else all are counted at once
  }
  setup_.index = {};
}

Sessions::~Sessions() {
  fetcher_.TakeWaits();  // whoever still waits for a state may hold the state itself
  context_.states->DropWaiters();
}

// ---- What SessionService offers ----

void Sessions::Create(absl::string_view tenant, SessionSettings settings, Done<SessionInfo> done) {
  Add(tenant, std::move(settings), nullptr,
      [this, done = std::move(done)](absl::StatusOr<SessionInfo> info) {
        if (info.ok()) context_.stats->sessions_created.Add();
        done(std::move(info));
      });
}

void Sessions::Get(absl::string_view tenant, const std::string& id, Done<SessionInfo> done) {
  GetOnce(tenant, id,
          Again<SessionInfo>(std::move(done), [=, this, tenant = std::string(tenant)](auto next) {
            GetOnce(tenant, id, next);
          }));
}

void Sessions::GetOnce(absl::string_view tenant, const std::string& id,
                       const Done<SessionInfo>& done) {
  reader_.Find(tenant, id, [this, done](absl::StatusOr<Session*> session) {
    if (!session.ok()) return done(session.status());
    reader_.CheckState(*session, [this, done, key = (*session)->key](absl::Status status) {
      const Session* checked = table_.Find(key);
      if (status.ok() && checked == nullptr) status = SessionTable::NotFound(key);
      if (!status.ok()) return done(status);
      done(table_.Info(*checked));
    });
  });
}

void Sessions::Update(absl::string_view tenant, const std::string& id, const std::string& etag,
                      SessionChange change, Done<SessionInfo> done) {
  const auto update = [=, this, done = std::move(done)](absl::StatusOr<Session*> found) {
    if (!found.ok()) return done(found.status());
    Session* session = *found;
    PendingChange pending;
    pending.etag = etag;
    pending.apply = [this, change, next = table_.RandomId()](SessionContent* content) {
      if (change.labels.has_value()) content->labels = *change.labels;
      if (change.ttl.has_value()) {
        content->ttl =
            *change.ttl == absl::ZeroDuration() ? setup_.limits.default_ttl : *change.ttl;
      }
      content->etag = next;
      content->update_time = context_.clock->WallNow();
    };
    pending.done = [this, session, done](absl::Status status) {
      if (!status.ok()) return done(status);
      expiry_.Touch(session);
      done(table_.Info(*session));
    };
    writer_.Change(session, std::move(pending));
  };
  reader_.FindOwned(tenant, id, SessionWish::kTurn, kUpdatePatience, update);
}

void Sessions::Fork(absl::string_view tenant, const std::string& id, const std::string& etag,
                    SessionSettings settings, Done<SessionInfo> done) {
  ForkOnce(tenant, id, etag, settings,
           Again<SessionInfo>(std::move(done), [=, this, tenant = std::string(tenant)](auto next) {
             ForkOnce(tenant, id, etag, settings, next);
           }));
}

void Sessions::ForkOnce(absl::string_view tenant, const std::string& id, const std::string& etag,
                        const SessionSettings& settings, const Done<SessionInfo>& done) {
  reader_.Find(tenant, id, [=, this](absl::StatusOr<Session*> found) {
    if (!found.ok()) return done(found.status());
    Session* parent = *found;
    absl::Status status = table_.CheckModel(*parent);
    if (status.ok()) status = table_.CheckEtag(*parent, etag);
    if (status.ok()) status = turns_.KeepState(parent);
    if (!status.ok()) return done(status);
    SessionSettings child = settings;
    if (child.affinity.empty()) child.affinity = parent->affinity;
    expiry_.Touch(parent);
    Add(parent->key.first, std::move(child), parent->now.state,
        [this, done](absl::StatusOr<SessionInfo> info) {
          if (info.ok()) context_.stats->forks.Add();
          done(std::move(info));
        });
  });
}

void Sessions::Delete(absl::string_view tenant, const std::string& id, const std::string& etag,
                      std::function<void(absl::Status)> done) {
  const auto remove = [=, this, key = SessionKey(std::string(tenant), id),
                       done = std::move(done)](absl::StatusOr<Session*> found) {
    // One that is damaged has no etag any more, and goes.
    Session* lost = absl::IsDataLoss(found.status()) && etag.empty() ? table_.Find(key) : nullptr;
    if (lost != nullptr && lost->lost && lost->phase == SessionPhase::kUnread) found = lost;
    if (!found.ok()) return done(found.status());
    const absl::Status status = table_.CheckEtag(**found, etag);
    if (!status.ok()) return done(status);
    context_.stats->sessions_deleted.Add();
    StartDelete(*found, done);
  };
  const auto own = [=, this, tenant = std::string(tenant)] {
    reader_.FindOwned(tenant, id, SessionWish::kDelete, kDeletePatience, remove);
  };
  if (etag.empty()) return own();
  // The owner ends its call for a delete, so one that is refused must not reach it.
  reader_.Find(tenant, id, [=, this](absl::StatusOr<Session*> found) {
    absl::Status status = found.status();
    if (status.ok()) status = table_.CheckEtag(**found, etag);
    if (!status.ok()) return remove(status);
    own();
  });
}

void Sessions::Export(absl::string_view tenant, const std::string& id, const std::string& etag,
                      Done<ExportedState> done) {
  ExportOnce(
      tenant, id, etag,
      Again<ExportedState>(std::move(done), [=, this, tenant = std::string(tenant)](auto next) {
        ExportOnce(tenant, id, etag, next);
      }));
}

void Sessions::ExportOnce(absl::string_view tenant, const std::string& id, const std::string& etag,
                          const Done<ExportedState>& done) {
  reader_.Find(tenant, id, [=, this](absl::StatusOr<Session*> found) {
    if (!found.ok()) return done(found.status());
    Session* session = *found;
    absl::Status status = table_.CheckModel(*session);
    if (status.ok()) status = table_.CheckEtag(*session, etag);
    if (status.ok()) status = turns_.KeepState(session);
    if (!status.ok()) return done(status);
    expiry_.Touch(session);
    const StatePtr state = session->now.state;
    ExportedState out{table_.Info(*session), {}, nullptr};
    if (state == nullptr) {
      context_.stats->exports.Add();
      return done(std::move(out));
    }
    out.info = state->info;
    // Several may wait for the data: one of them may want room, and would have it dropped again.
    const auto pin = std::make_shared<Pin>(state);
    fetcher_.Fetch(state, [this, state, pin, out, done](absl::Status ready) mutable {
      if (!ready.ok()) return done(ready);
      state->exported = true;
      out.data = state->data();
      context_.stats->exports.Add();
      done(std::move(out));
    });
  });
}

void Sessions::Import(absl::string_view tenant, SessionSettings settings, StateInfo info,
                      StateData data, Done<SessionInfo> done) {
  StatePtr state;
  if (info.position > 0) {
    Room room;
    const int64_t bytes = context_.states->BytesAt(info.seen());
    const absl::Status status = context_.states->Reserve(bytes, bytes, &room);
    if (!status.ok()) {
      context_.stats->room_refusals.Add();
      return done(status);
    }
    state = context_.states->AdoptData(std::move(info),
                                       std::make_shared<StateData>(std::move(data)), &room);
  }
  Add(tenant, std::move(settings), std::move(state),
      [this, done = std::move(done)](absl::StatusOr<SessionInfo> imported) {
        if (imported.ok()) context_.stats->imports.Add();
        done(std::move(imported));
      });
}

// ---- Sessions come and go ----

void Sessions::Add(absl::string_view tenant, SessionSettings settings, StatePtr state,
                   Done<SessionInfo> done, bool looked) {
  SessionKey key(std::string(tenant), settings.id.empty() ? table_.RandomId() : settings.id);
  if (Session* taken = table_.Find(key)) {
    const bool there = taken->phase == SessionPhase::kLive || taken->phase == SessionPhase::kUnread;
    // Another daemon may have deleted it.
    const bool unsure = there && owners_.MustLook(*taken) && !looked;
    if (!unsure && (taken->phase != SessionPhase::kUnread || taken->indexed)) {
      return done(absl::AlreadyExistsError(absl::StrCat("session '", key.second, "' exists")));
    }
    // Somebody asks the store for the same name: see what it says.
    settings.id = key.second;
    taken->on_read.push_back([=, this, tenant = key.first](absl::Status) {
      Add(tenant, settings, state, done, /*looked=*/true);
    });
    return queue_.Enqueue(taken);
  }
  // The store counts a directory that is shared.
  const absl::Status status = setup_.shared ? absl::OkStatus() : table_.CheckLimits(key.first);
  if (!status.ok()) return done(status);
  const SessionPhase phase = setup_.has_store ? SessionPhase::kCreating : SessionPhase::kLive;
  Session* session = table_.Insert(key, phase, /*indexed=*/true);
  session->affinity = settings.affinity.empty() ? key.second : settings.affinity;
  session->fingerprint = setup_.fingerprint;
  session->create_time = context_.clock->WallNow();
  SessionContent& now = session->now;
  now.etag = table_.RandomId();
  now.state = std::move(state);
  now.ttl = settings.ttl == absl::ZeroDuration() ? setup_.limits.default_ttl : settings.ttl;
  now.labels = std::move(settings.labels);
  now.update_time = session->create_time;
  PendingChange creation;
  creation.apply = [](SessionContent*) {};
  creation.done = [this, session, done = std::move(done)](absl::Status stored) {
    if (!stored.ok()) return done(stored);
    expiry_.Touch(session);
    done(table_.Info(*session));
  };
  writer_.Change(session, std::move(creation));
}

void Sessions::StartDelete(Session* session, std::function<void(absl::Status)> done) {
  session->phase = SessionPhase::kDeleting;
  session->on_deleted.push_back(std::move(done));
  expiry_.Set(session, absl::InfiniteDuration());
  session->lost = false;
  turns_.CancelWriter(*session, "the session was deleted");
  for (const auto& tell : TakeWaiting(session)) tell(SessionTable::NotFound(session->key));
  if (setup_.has_store) return queue_.Enqueue(session);
  endings_.Remove(session, absl::OkStatus());
}

// ---- The end of a session's time ----

void Sessions::Expire(absl::Duration now) {
  while (const SessionKey* due = expiry_.Due(now)) {
    Session* session = table_.Find(*due);
    const bool in_use = session->writer != nullptr || !session->waiting.empty() ||
                        (setup_.has_store && IsMoving(*session));
    if (in_use) {
      expiry_.Touch(session);
    } else if (expiry_.Believed(*session) > now) {
      expiry_.Set(session, expiry_.Believed(*session));
    } else if (!setup_.has_store) {
      ExpireIfOver(session);
    } else {
      // Somebody may have used it whom this daemon does not know of: the disk says so.
      expiry_.Set(session, now + kExpiryPatience);
      const auto again = [this](absl::StatusOr<Session*> found) {
        if (found.ok()) ExpireIfOver(*found);
      };
      if (!owners_.MustLook(*session)) session->phase = SessionPhase::kUnread;
      reader_.FindOwned(session->key.first, session->key.second, SessionWish::kNone,
                        kExpiryPatience, again);
    }
  }
}

void Sessions::ExpireIfOver(Session* session) {
  if (!expiry_.IsOver(*session) || session->writer != nullptr || !session->waiting.empty() ||
      !session->changes.empty()) {
    return;
  }
  context_.stats->sessions_expired.Add();
  StartDelete(session, [](absl::Status) {});
}

// ---- Jobs ----

std::vector<std::unique_ptr<StoreJob>> Sessions::TakeJobs() {
  std::vector<std::unique_ptr<StoreJob>> jobs;
  if (!setup_.has_store) return jobs;
  const absl::Duration now = context_.clock->Now();
  queue_.WakeUntil(now);
  if (setup_.shared) {
    owners_.WakeUntil(now);
    owners_.AddReleases(&jobs);
    pages_.AddLists(&jobs);
    if (!stopping_) {
      owners_.AddRequests(now, &jobs);
      pages_.AddListOfAll(now, &jobs);
    }
  }
  // Reads first: a write may take the file away.
  fetcher_.AddJobs(&jobs);
  for (const SessionKey& key : queue_.Take()) {
    Session* session = table_.Find(key);
    if (session == nullptr || !std::exchange(session->queued, false)) continue;
    if (auto job = MakeJob(session)) jobs.push_back(std::move(job));
  }
  if (jobs.empty()) {
    if (auto job = queue_.IdleJob()) jobs.push_back(std::move(job));
  }
  return jobs;
}

std::unique_ptr<StoreJob> Sessions::MakeJob(Session* session) {
  if (session->job_out) return nullptr;  // JobDone comes back to it
  if (auto check = reader_.CheckJob(session)) return check;
  return reader_.MustRead(*session) ? reader_.ReadJob(session) : writer_.MakeJob(session);
}

void Sessions::JobDone(std::unique_ptr<StoreJob> job) {
  const std::vector<SessionKey> keys = queue_.Return(*job);
  context_.stats->quarantined.Add(
      static_cast<uint64_t>(std::max<int64_t>(0, job->quarantined - quarantined_)));
  quarantined_ = std::max(quarantined_, job->quarantined);
  if (job->kind == StoreJob::Kind::kRequests) return RequestsDone(*job);
  if (job->kind == StoreJob::Kind::kList) return pages_.ListDone(*job);
  if (keys.empty()) return;  // a session that is gone was let go of
  Session* session = table_.Find(keys.front());
  const Pin lent = std::move(session->out_pin);  // until nobody takes it for a copy of a file
  session->out_data_pin.Release();
  switch (job->kind) {
    case StoreJob::Kind::kReadRecord:
      reader_.ReadDone(session, job.get());
      break;
    case StoreJob::Kind::kPutRecord:
      writer_.PutDone(session, job.get());
      break;
    case StoreJob::Kind::kDelete:
      writer_.DeleteDone(session, job.get());
      break;
    case StoreJob::Kind::kReadState:
      fetcher_.Done(session, job.get());
      break;
    case StoreJob::Kind::kCheckState:
      reader_.CheckDone(session, *job);
      break;
    case StoreJob::Kind::kMark:
      writer_.MarkDone(session, job->status);
      break;
    case StoreJob::Kind::kTouch:  // of a record that was replaced meanwhile: it says more
    case StoreJob::Kind::kRelease:
    case StoreJob::Kind::kRequests:
    case StoreJob::Kind::kList:
      break;
  }
  for (const SessionKey& key : keys) {
    if (Session* free = table_.Find(key)) queue_.Enqueue(free);
  }
}

void Sessions::RequestsDone(const StoreJob& job) {
  for (const auto& [key, wish] : owners_.RequestsDone(job)) {
    const Session* session = table_.Find(key);
    if (wish == SessionWish::kTurn || session == nullptr) continue;
    const bool deleted = wish == SessionWish::kDelete;
    const char* why =
        deleted ? "the session was deleted" : "another call has taken over the session";
    if (turns_.CancelWriter(*session, why)) context_.stats->conflicts.Add();
  }
}

bool Sessions::jobs_outstanding() const {
  if (owners_.outstanding() || pages_.outstanding()) return true;
  const size_t idle = queue_.idle_out() + owners_.requests_out() + pages_.list_of_all_out();
  return !queue_.empty() || !fetcher_.empty() || queue_.out() > idle;
}

int64_t Sessions::unwritten() const {
  if (!setup_.has_store) return 0;
  const SessionTable::Map& all = table_.all();
  return std::count_if(all.begin(), all.end(), [](const auto& entry) {
    const Session& session = *entry.second;
    return session.phase == SessionPhase::kLive && session.version != session.stored_version;
  });
}

absl::Duration Sessions::NextDeadline() const {
  const absl::Duration next = std::min(expiry_.NextDeadline(), queue_.NextDeadline());
  if (!setup_.shared || stopping_) return next;
  return std::min({next, owners_.NextDeadline(), pages_.NextDeadline()});
}

void Sessions::PrepareToStop() {
  stopping_ = true;
  queue_.DropIdle();
  Waits told;
  for (auto& [key, session] : table_.all()) {
    for (SessionWait& wait : std::exchange(session->for_owner, {})) {
      told.push_back(std::move(wait.then));
    }
    for (SessionWait& wait : std::exchange(session->for_written, {})) {
      told.push_back(std::move(wait.then));
    }
  }
  for (const auto& then : told) then(absl::UnavailableError("the daemon is shutting down"));
  queue_.WakeUntil(absl::InfiniteDuration());
}

void Sessions::GiveUp(const absl::Status& why) {
  Waits told = pages_.TakeWaits();
  const auto add = [&told](Waits more) {
    std::move(more.begin(), more.end(), std::back_inserter(told));
  };
  for (auto& [key, session] : table_.all()) add(SessionEndings::TakeAll(session.get()));
  add(fetcher_.TakeWaits());
  // One of its own for each: the threads that they end up on share none (device_thread.cc).
  for (const auto& done : told) done(absl::Status(why.code(), why.message()));
}

void Sessions::SetGauges() {
  context_.stats->sessions.Set(table_.total());
  context_.stats->busy_sessions.Set(table_.busy());
}

}  // namespace sluice
