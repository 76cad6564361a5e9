#include "engine/sessions.h"

#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace sluice {
namespace {

uint64_t SystemRandom() {
  uint64_t bits = 0;
  SLUICE_CHECK(getrandom(&bits, sizeof bits, 0) == sizeof bits);
  return bits;
}

// What another daemon does with a session is over within these, or the session is busy.
constexpr absl::Duration kUpdatePatience = absl::Seconds(5);
constexpr absl::Duration kDeletePatience = absl::Seconds(10);

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
    : states_(states),
      clock_(clock),
      stats_(stats),
      setup_(std::move(setup)),
      ages_(clock, setup_.on_wrong_clock) {
  if (!setup_.random) setup_.random = SystemRandom;
  for (const SessionName& name : setup_.index) {
    Session* session = Insert({name.tenant, name.id}, /*indexed=*/true);
    session->phase = SessionPhase::kUnread;
    session->generation = name.generation;
    unread_.push_back(session->key);
    if (setup_.shared) continue;  // all in the directory are counted at once
    session->counted_unread = true;
    states_->AddUnread(1);
  }
  setup_.index = {};
}

Sessions::~Sessions() {
  for (auto& [key, session] : sessions_) SLUICE_CHECK(session->writer == nullptr);
  // Whoever still waits for a state may hold the state itself.
  for (const StatePtr& state : fetches_) state->on_data.clear();
  for (auto& [job, state] : fetching_) state->on_data.clear();
  states_->DropWaiters();
}

absl::Status Sessions::NotFound(const SessionKey& key) {
  return absl::NotFoundError(absl::StrCat("there is no session '", key.second, "'"));
}

absl::Status Sessions::CheckEtag(const Session& session, const std::string& etag) const {
  if (etag.empty() || etag == session.now.etag) return absl::OkStatus();
  stats_->conflicts.Add();
  return absl::AbortedError(
      absl::StrCat("the session has changed: its etag is ", session.now.etag, ", not ", etag));
}

// ---- What SessionService offers ----

void Sessions::Create(absl::string_view tenant, SessionSettings settings, Done<SessionInfo> done) {
  Add(tenant, std::move(settings), nullptr,
      [this, done = std::move(done)](absl::StatusOr<SessionInfo> info) {
        if (info.ok()) stats_->sessions_created.Add();
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
  Find(tenant, id, [this, done](absl::StatusOr<Session*> session) {
    if (!session.ok()) return done(session.status());
    CheckState(*session, [this, done, key = (*session)->key](absl::Status status) {
      const Session* checked = Lookup(key);
      if (status.ok() && checked == nullptr) status = NotFound(key);
      if (!status.ok()) return done(status);
      done(Info(*checked));
    });
  });
}

void Sessions::CheckState(Session* session, std::function<void(absl::Status)> checked) {
  const StatePtr& state = session->now.state;
  if (state == nullptr || state->checked || state->has_data() || state->fetching ||
      state != session->stored_state) {
    return checked(absl::OkStatus());
  }
  session->on_checked.push_back(std::move(checked));
  Enqueue(session);
}

void Sessions::Update(absl::string_view tenant, const std::string& id, const std::string& etag,
                      SessionChange change, Done<SessionInfo> done) {
  const auto update = [=, this, done = std::move(done)](absl::StatusOr<Session*> found) {
    if (!found.ok()) return done(found.status());
    Session* session = *found;
    PendingChange pending;
    pending.etag = etag;
    pending.apply = [this, change, next = RandomId()](SessionContent* content) {
      if (change.labels.has_value()) content->labels = *change.labels;
      if (change.ttl.has_value()) {
        content->ttl =
            *change.ttl == absl::ZeroDuration() ? setup_.limits.default_ttl : *change.ttl;
      }
      content->etag = next;
      content->update_time = clock_->WallNow();
    };
    pending.done = [this, session, done](absl::Status status) {
      if (!status.ok()) return done(status);
      Touch(session);
      done(Info(*session));
    };
    Change(session, std::move(pending));
  };
  FindOwned(tenant, id, SessionWish::kTurn, kUpdatePatience, update);
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
  Find(tenant, id, [=, this](absl::StatusOr<Session*> found) {
    if (!found.ok()) return done(found.status());
    Session* parent = *found;
    absl::Status status = CheckModel(*parent);
    if (status.ok()) status = CheckEtag(*parent, etag);
    if (status.ok()) status = KeepState(parent);
    if (!status.ok()) return done(status);
    SessionSettings child = settings;
    if (child.affinity.empty()) child.affinity = parent->affinity;
    Touch(parent);
    Add(parent->key.first, std::move(child), parent->now.state,
        [this, done](absl::StatusOr<SessionInfo> info) {
          if (info.ok()) stats_->forks.Add();
          done(std::move(info));
        });
  });
}

void Sessions::Delete(absl::string_view tenant, const std::string& id, const std::string& etag,
                      std::function<void(absl::Status)> done) {
  const auto remove = [=, this, key = SessionKey(std::string(tenant), id),
                       done = std::move(done)](absl::StatusOr<Session*> found) {
    // One that is damaged has no etag any more, and goes.
    Session* lost = absl::IsDataLoss(found.status()) && etag.empty() ? Lookup(key) : nullptr;
    if (lost != nullptr && lost->lost && lost->phase == SessionPhase::kUnread) found = lost;
    if (!found.ok()) return done(found.status());
    const absl::Status status = CheckEtag(**found, etag);
    if (!status.ok()) return done(status);
    stats_->sessions_deleted.Add();
    StartDelete(*found, done);
  };
  FindOwned(tenant, id, SessionWish::kDelete, kDeletePatience, remove);
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
  Find(tenant, id, [=, this](absl::StatusOr<Session*> found) {
    if (!found.ok()) return done(found.status());
    Session* session = *found;
    absl::Status status = CheckModel(*session);
    if (status.ok()) status = CheckEtag(*session, etag);
    if (status.ok()) status = KeepState(session);
    if (!status.ok()) return done(status);
    Touch(session);
    const StatePtr state = session->now.state;
    ExportedState out{Info(*session), {}, nullptr};
    if (state == nullptr) {
      stats_->exports.Add();
      return done(std::move(out));
    }
    out.info = state->info;
    // Of several who wait for the data, one may want room, and would have it dropped again.
    const auto pin = std::make_shared<Pin>(state);
    WithData(state, [this, state, pin, out, done](absl::Status ready) mutable {
      if (!ready.ok()) return done(ready);
      state->exported = true;
      out.data = state->data();
      stats_->exports.Add();
      done(std::move(out));
    });
  });
}

void Sessions::Import(absl::string_view tenant, SessionSettings settings, StateInfo info,
                      StateData data, Done<SessionInfo> done) {
  StatePtr state;
  if (info.position > 0) {
    Room room;
    const absl::Status status = states_->Reserve(1, 1, &room);
    if (!status.ok()) {
      stats_->room_refusals.Add();
      return done(status);
    }
    state =
        states_->AdoptData(std::move(info), std::make_shared<StateData>(std::move(data)), &room);
  }
  Add(tenant, std::move(settings), std::move(state),
      [this, done = std::move(done)](absl::StatusOr<SessionInfo> imported) {
        if (imported.ok()) stats_->imports.Add();
        done(std::move(imported));
      });
}

// ---- Sessions come and go ----

void Sessions::Find(absl::string_view tenant, const std::string& id, Found found) {
  SessionKey key(std::string(tenant), id);
  Session* session = LookupOrInsert(key);
  if (session == nullptr) return found(NotFound(key));
  switch (session->phase) {
    case SessionPhase::kLive:
      if (!MustLook(*session)) return found(session);
      break;
    case SessionPhase::kCreating:
    case SessionPhase::kDeleting:
      return found(NotFound(key));
    case SessionPhase::kUnread:
      break;
  }
  session->on_read.push_back([this, key, found = std::move(found)](absl::Status status) {
    if (!status.ok()) return found(status);
    Session* read = Lookup(key);
    if (read == nullptr || read->phase != SessionPhase::kLive) return found(NotFound(key));
    found(read);
  });
  Enqueue(session);
}

Session* Sessions::Lookup(const SessionKey& key) {
  const auto it = sessions_.find(key);
  return it == sessions_.end() ? nullptr : it->second.get();
}

Session* Sessions::LookupOrInsert(const SessionKey& key) {
  Session* session = Lookup(key);
  if (session != nullptr || !setup_.has_store) return session;
  // Another daemon on the same directory may have made it.
  session = Insert(key, /*indexed=*/false);
  session->phase = SessionPhase::kUnread;
  return session;
}

Session* Sessions::Insert(SessionKey key, bool indexed) {
  auto owned = std::make_unique<Session>();
  Session* session = owned.get();
  session->key = std::move(key);
  session->created = clock_->Now();
  session->indexed = indexed;
  if (indexed) {
    ++total_;
    ++per_tenant_[session->key.first];
  }
  SLUICE_CHECK(sessions_.emplace(session->key, std::move(owned)).second);
  return session;
}

void Sessions::Add(absl::string_view tenant, SessionSettings settings, StatePtr state,
                   Done<SessionInfo> done, bool looked) {
  SessionKey key(std::string(tenant), settings.id.empty() ? RandomId() : settings.id);
  if (Session* taken = Lookup(key)) {
    const bool there = taken->phase == SessionPhase::kLive || taken->phase == SessionPhase::kUnread;
    // Another daemon may have deleted it.
    const bool unsure = there && MustLook(*taken) && !looked;
    if (!unsure && (taken->phase != SessionPhase::kUnread || taken->indexed)) {
      return done(absl::AlreadyExistsError(absl::StrCat("session '", key.second, "' exists")));
    }
    // Somebody asks the store for the same name: see what it says.
    settings.id = key.second;
    taken->on_read.push_back([=, this, tenant = key.first](absl::Status) {
      Add(tenant, settings, state, done, /*looked=*/true);
    });
    return Enqueue(taken);
  }
  // The store counts a directory that is shared.
  const absl::Status status = setup_.shared ? absl::OkStatus() : CheckLimits(key.first);
  if (!status.ok()) return done(status);
  Session* session = Insert(key, /*indexed=*/true);
  session->affinity = settings.affinity.empty() ? key.second : settings.affinity;
  session->fingerprint = setup_.fingerprint;
  session->create_time = clock_->WallNow();
  SessionContent& now = session->now;
  now.etag = RandomId();
  now.state = std::move(state);
  now.ttl = settings.ttl == absl::ZeroDuration() ? setup_.limits.default_ttl : settings.ttl;
  now.labels = std::move(settings.labels);
  now.update_time = session->create_time;
  if (setup_.has_store) session->phase = SessionPhase::kCreating;
  PendingChange creation;
  creation.apply = [](SessionContent*) {};
  creation.done = [this, session, done = std::move(done)](absl::Status stored) {
    if (!stored.ok()) return done(stored);
    Touch(session);
    done(Info(*session));
  };
  Change(session, std::move(creation));
}

absl::Status Sessions::CheckLimits(const std::string& tenant) const {
  if (total_ >= setup_.limits.max_sessions) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the daemon has all the sessions it may have: ", setup_.limits.max_sessions));
  }
  const auto it = per_tenant_.find(tenant);
  if (it != per_tenant_.end() && it->second >= setup_.limits.max_sessions_per_tenant) {
    return absl::ResourceExhaustedError(absl::StrCat("you have all the sessions you may have: ",
                                                     setup_.limits.max_sessions_per_tenant));
  }
  return absl::OkStatus();
}

absl::Status Sessions::CheckModel(const Session& session) const {
  if (session.fingerprint == setup_.fingerprint) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the session belongs to another model, of fingerprint ", session.fingerprint));
}

void Sessions::Change(Session* session, PendingChange change) {
  if (setup_.has_store) {
    session->changes.push_back(std::move(change));
    return Enqueue(session);
  }
  const absl::Status status = CheckEtag(*session, change.etag);
  if (status.ok()) change.apply(&session->now);
  change.done(status);
}

void Sessions::StartDelete(Session* session, std::function<void(absl::Status)> done) {
  session->phase = SessionPhase::kDeleting;
  session->on_deleted.push_back(std::move(done));
  SetExpiry(session, absl::InfiniteDuration());
  session->lost = false;
  if (session->writer != nullptr && !session->writer->committing) {
    cancel_call_(session->writer->call, absl::CancelledError("the session was deleted"));
  }
  const auto waiting = std::exchange(session->waiting, {});
  for (const auto& use : waiting) {
    use->session = nullptr;
    use->ready(NotFound(session->key));
  }
  if (setup_.has_store) return Enqueue(session);
  Remove(session, absl::OkStatus());
}

void Sessions::Remove(Session* session, const absl::Status& status) {
  if (session->writer != nullptr) {
    session->writer->session = nullptr;
    session->writer->outdated = true;
    --busy_;
  }
  SetExpiry(session, absl::InfiniteDuration());
  if (session->indexed) {
    --total_;
    if (--per_tenant_[session->key.first] == 0) per_tenant_.erase(session->key.first);
  }
  if (session->phase != SessionPhase::kUnread) {
    stats_->session_age_seconds.Observe(absl::ToDoubleSeconds(clock_->Now() - session->created));
  }
  if (session->counted_unread) states_->AddUnread(-1);
  SetStored(session, nullptr, "");
  SetLook(session, -absl::InfiniteDuration());
  if (session->owned || session->asking) releases_.push_back(session->key);
  owned_.erase(session->key);
  const auto it = sessions_.find(session->key);
  const std::unique_ptr<Session> gone = std::move(it->second);
  sessions_.erase(it);
  for (const auto& use : gone->waiting) {
    use->session = nullptr;
    use->ready(status.ok() ? NotFound(gone->key) : status);
  }
  for (const PendingChange& change : gone->changes) {
    change.done(status.ok() ? NotFound(gone->key) : status);
  }
  for (const auto& deleted : gone->on_deleted) deleted(status);
  auto waits = TakeWaits(gone.get());
  for (auto& checked : gone->on_checked) waits.push_back(std::move(checked));
  for (const auto& wait : waits) wait(status.ok() ? NotFound(gone->key) : status);
}

// ---- Small things ----

SessionInfo Sessions::Info(const Session& session) const {
  SessionInfo info;
  const StatePtr& state = session.now.state;
  info.id = session.key.second;
  info.affinity = session.affinity;
  info.fingerprint = session.fingerprint;
  info.etag = session.now.etag;
  if (state != nullptr) {
    info.position = state->info.position;
    info.numerics_id = state->info.numerics_id;
    info.tier = state->tier();
    info.state_bytes = states_->state_bytes();
  }
  info.busy = session.writer != nullptr || session.busy_elsewhere;
  info.durable = session.generation > 0 && session.stored_version == session.version;
  info.last_request_id = session.now.last_request_id;
  info.create_time = session.create_time;
  info.update_time = session.now.update_time;
  if (session.now.ttl != absl::InfiniteDuration()) {
    info.expire_time = clock_->WallNow() + (ExpiryOf(session) - clock_->Now());
  }
  info.labels = session.now.labels;
  return info;
}

std::string Sessions::RandomId() {
  const uint64_t high = setup_.random();
  const uint64_t low = setup_.random();
  return absl::StrCat(absl::Hex(high, absl::kZeroPad16), absl::Hex(low, absl::kZeroPad16));
}

void Sessions::WithData(const StatePtr& state, std::function<void(absl::Status)> ready) {
  if (state->data_ready()) return ready(absl::OkStatus());
  if (state->has_data() && states_->device_failed()) {
    return ready(absl::UnavailableError("the device has failed"));
  }
  if (!state->has_data() && !state->fetching) {
    const absl::Status status = states_->Reserve(1, 0, &state->fetch_room);
    if (!status.ok()) return ready(status);
  }
  state->on_data.push_back(std::move(ready));
  if (state->has_data() || state->fetching) return;
  state->fetching = true;
  state->fetch_asked = clock_->Now();
  fetches_.push_back(state);
}

void Sessions::SetGauges() {
  stats_->sessions.Set(total_);
  stats_->busy_sessions.Set(busy_);
}

}  // namespace sluice
