// What a call does with its session: takes it, reads its state, commits, lets go.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/sessions.h"
#include "kernels/check.h"

namespace sluice {
namespace {

// Another daemon may move a session on between a look at it and the read of its state.
constexpr int kTries = 3;

}  // namespace

void Sessions::Acquire(absl::string_view tenant, const std::string& id,
                       std::shared_ptr<SessionUse> use) {
  if (setup_.shared && use->writes) {
    // Who owns it decides, and the record is read once this daemon does.
    const SessionKey key(std::string(tenant), id);
    Session* session = LookupOrInsert(key);
    const bool there =
        session->phase == SessionPhase::kLive || session->phase == SessionPhase::kUnread;
    return there ? TakeTurn(session, use) : use->ready(NotFound(key));
  }
  Find(tenant, id, [this, use = std::move(use)](absl::StatusOr<Session*> found) {
    if (use->released) return;
    if (!found.ok()) return use->ready(found.status());
    if (use->writes) return TakeTurn(*found, use);
    Start(*found, use);
  });
}

void Sessions::TakeTurn(Session* session, const std::shared_ptr<SessionUse>& use) {
  const bool free = session->writer == nullptr && session->waiting.empty();
  if (free && session->phase == SessionPhase::kLive && MayStart(*session)) {
    return Start(session, use);
  }
  if (!free && use->on_conflict == OnConflict::kFail) {
    stats_->conflicts.Add();
    return use->ready(absl::AbortedError("the session is busy: another call writes to it"));
  }
  use->session = session;
  use->since = clock_->Now();
  if (use->on_conflict != OnConflict::kCancelRunning) {
    session->waiting.push_back(use);
    return Enqueue(session);
  }
  session->waiting.push_front(use);
  Enqueue(session);
  // What is on its way to the disk is waited for.
  if (session->writer == nullptr || session->writer->committing) return;
  stats_->conflicts.Add();
  cancel_call_(session->writer->call,
               absl::CancelledError("another call has taken over the session"));
}

void Sessions::Start(Session* session, const std::shared_ptr<SessionUse>& use) {
  absl::Status status = CheckModel(*session);
  if (status.ok()) status = CheckEtag(*session, use->etag);
  if (status.ok()) status = use->writes ? ReserveFor(*session, use.get()) : KeepState(session);
  if (!status.ok()) {
    use->session = nullptr;
    return use->ready(status);
  }
  // A reader does not keep the session from being deleted under it.
  use->session = use->writes ? session : nullptr;
  use->state = session->now.state;
  use->pin = Pin(use->state);
  if (use->writes) {
    session->writer = use;
    ++busy_;
  }
  Touch(session);
  if (use->state == nullptr) return use->ready(absl::OkStatus());
  states_->Touch(use->state.get());
  if (use->state->on_device() || use->state->has_data()) return use->ready(absl::OkStatus());
  WithData(use->state, [this, use, key = session->key](absl::Status read) {
    if (use->released) return;
    if (!use->writes && IsLostRace(read) && ++use->lost_races < kTries) {
      use->pin.Release();
      use->state.reset();
      return Acquire(key.first, key.second, use);
    }
    if (read.ok()) stats_->disk_restores.Add();
    use->ready(std::move(read));
  });
}

absl::Status Sessions::ReserveFor(const Session& session, SessionUse* use) {
  absl::Status status = states_->Reserve(1, 1, &use->room);
  if (!status.ok() && MayReplace(session)) {
    states_->ReserveInPlace(&use->room);
    use->in_place = true;
    return absl::OkStatus();
  }
  if (!status.ok()) stats_->room_refusals.Add();
  return status;
}

bool Sessions::MayReplace(const Session& session) const {
  const StatePtr& state = session.now.state;
  if (state == nullptr || (setup_.has_store && session.stored_state != state)) return false;
  int64_t own = 0;
  for (const StatePtr* one : {&state, &session.stored_state, &session.out.state}) {
    if (*one == state) ++own;
  }
  return state.use_count() == own;
}

absl::Status Sessions::KeepState(Session* session) {
  SessionUse* writer = session->writer.get();
  if (writer == nullptr || !writer->in_place || writer->outdated) return absl::OkStatus();
  absl::Status status = absl::ResourceExhaustedError(
      "the session's state is being replaced, and there is no room to keep it");
  if (!writer->committing) status = states_->Reserve(1, 1, &writer->room);
  if (status.ok()) {
    writer->in_place = false;
  } else {
    stats_->room_refusals.Add();
  }
  return status;
}

void Sessions::LeavePlace(SessionUse* use) {
  use->pin.Release();
  use->state.reset();
  use->room.Release();
  states_->Trim();
}

void Sessions::StartNext(Session* session) {
  while (session->phase == SessionPhase::kLive && session->writer == nullptr &&
         !session->waiting.empty() && MayStart(*session)) {
    const std::shared_ptr<SessionUse> next = std::move(session->waiting.front());
    session->waiting.pop_front();
    Start(session, next);
  }
}

void Sessions::Release(const std::shared_ptr<SessionUse>& use) {
  if (std::exchange(use->released, true)) return;
  use->pin.Release();
  use->room.Release();
  use->state.reset();
  use->ready = nullptr;
  Session* session = std::exchange(use->session, nullptr);
  if (session == nullptr) return;
  const auto waiting = std::find(session->waiting.begin(), session->waiting.end(), use);
  if (waiting != session->waiting.end()) session->waiting.erase(waiting);
  if (setup_.shared) Enqueue(session);  // what the others are asked for, or may have now
  if (session->writer != use) return;
  session->writer.reset();
  --busy_;
  Touch(session);
  StartNext(session);
}

void Sessions::Commit(const std::shared_ptr<SessionUse>& use, StateInfo info, int32_t slot,
                      HostState data, const std::string& request_id, bool durable,
                      Done<SessionInfo> done) {
  SLUICE_CHECK(use->writes && !use->released);
  StatePtr state = data == nullptr
                       ? states_->AdoptSlot(std::move(info), slot, &use->room)
                       : states_->AdoptData(std::move(info), std::move(data), &use->room);
  Session* session = use->session;
  if (session == nullptr) return done(absl::NotFoundError("the session was deleted meanwhile"));
  if (use->outdated) {
    return done(absl::AbortedError("another daemon has changed the session meanwhile"));
  }
  const auto apply = [this, state = std::move(state), request_id,
                      etag = RandomId()](SessionContent* content) {
    content->state = state;
    content->last_request_id = request_id;
    content->etag = etag;
    content->update_time = clock_->WallNow();
  };
  use->committing = true;
  if (durable && setup_.has_store) {
    PendingChange change;
    change.apply = apply;
    change.done = [this, use, session, done = std::move(done)](absl::Status stored) {
      if (!stored.ok()) return done(stored);
      stats_->commits.Add();
      SessionInfo committed = Info(*session);
      committed.busy = false;
      done(std::move(committed));
    };
    // The old state's file is there should this fail.
    if (use->in_place) LeavePlace(use.get());
    return Change(session, std::move(change));
  }
  auto acknowledge = [this, use, session, apply, done = std::move(done)](absl::Status marked) {
    if (!marked.ok()) return done(marked);
    apply(&session->now);
    if (use->in_place) LeavePlace(use.get());
    ++session->version;
    stats_->commits.Add();
    if (setup_.has_store) Enqueue(session);
    SessionInfo committed = Info(*session);
    committed.busy = false;  // by the time it is read
    done(std::move(committed));
  };
  // A job that is out may take the mark away at its end.
  if (!setup_.shared || (session->marked && !session->job_out)) {
    return acknowledge(absl::OkStatus());
  }
  session->marks.push_back(std::move(acknowledge));
  Enqueue(session);
}

}  // namespace sluice
