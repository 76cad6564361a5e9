#include "engine/sessions/session_turns.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace sluice {
namespace {

// Another daemon may move a session on between a look at it and the read of its state.
constexpr int kTries = 3;

}  // namespace

void SessionTurns::Acquire(absl::string_view tenant, const std::string& id,
                           std::shared_ptr<SessionUse> use) {
  if (context_.setup->shared && use->writes) {
    // The owner decides, and the record is read once this daemon owns the session.
    const SessionKey key(std::string(tenant), id);
    Session* session = table_->FindOrInsert(key);
    const bool there =
        session->phase == SessionPhase::kLive || session->phase == SessionPhase::kUnread;
    if (!there) return use->ready(SessionTable::NotFound(key));
    const bool ends_others = use->on_conflict == OnConflict::kCancelRunning && !use->etag.empty();
    if (!ends_others || session->owned) return TakeTurn(session, use);
    // The owner ends its call for this one, so one that is refused must not reach it.
    return reader_->Find(tenant, id, [this, use](absl::StatusOr<Session*> found) {
      if (use->released) return;
      absl::Status status = found.status();
      if (status.ok()) status = table_->CheckEtag(**found, use->etag);
      return status.ok() ? TakeTurn(*found, use) : use->ready(status);
    });
  }
  reader_->Find(tenant, id, [this, use = std::move(use)](absl::StatusOr<Session*> found) {
    if (use->released) return;
    if (!found.ok()) return use->ready(found.status());
    if (use->writes) return TakeTurn(*found, use);
    Start(*found, use);
  });
}

void SessionTurns::TakeTurn(Session* session, const std::shared_ptr<SessionUse>& use) {
  const bool free = session->writer == nullptr && session->waiting.empty();
  if (free && session->phase == SessionPhase::kLive && owners_->MayStart(*session)) {
    return Start(session, use);
  }
  if (!free && use->on_conflict == OnConflict::kFail) {
    context_.stats->conflicts.Add();
    return use->ready(absl::AbortedError("the session is busy: another call writes to it"));
  }
  if (session->writer != nullptr && use->on_conflict == OnConflict::kCancelRunning) {
    const absl::Status status = table_->CheckEtag(*session, use->etag);
    if (!status.ok()) return use->ready(status);
  }
  use->session = session;
  use->since = context_.clock->Now();
  if (use->on_conflict != OnConflict::kCancelRunning) {
    session->waiting.push_back(use);
    return queue_->Enqueue(session);
  }
  session->waiting.push_front(use);
  queue_->Enqueue(session);
  // A commit that is on its way to the disk is waited for.
  if (session->writer == nullptr || session->writer->committing) return;
  context_.stats->conflicts.Add();
  CancelWriter(*session, "another call has taken over the session");
}

bool SessionTurns::CancelWriter(const Session& session, const std::string& why) {
  if (session.writer == nullptr || session.writer->committing) return false;
  cancel_call_(session.writer->call, absl::CancelledError(why));
  return true;
}

void SessionTurns::Start(Session* session, const std::shared_ptr<SessionUse>& use) {
  absl::Status status = table_->CheckModel(*session);
  if (status.ok()) status = table_->CheckEtag(*session, use->etag);
  if (status.ok()) status = use->writes ? ReserveFor(*session, use.get()) : KeepState(session);
  if (!status.ok()) {
    use->session = nullptr;
    return use->ready(status);
  }
  // A reader does not keep the session from being deleted under it.
  use->session = use->writes ? session : nullptr;
  use->state = session->now.state;
  use->pin = Pin(use->state);
  if (use->writes) table_->SetWriter(session, use);
  expiry_->Touch(session);
  if (use->state == nullptr) return use->ready(absl::OkStatus());
  context_.states->Touch(use->state.get());
  if (use->state->on_device() || use->state->has_data()) return use->ready(absl::OkStatus());
  fetcher_->Fetch(use->state, [this, use, key = session->key](absl::Status read) {
    if (use->released) return;
    if (!use->writes && IsLostRace(read) && ++use->lost_races < kTries) {
      use->pin.Release();
      use->state.reset();
      return Acquire(key.first, key.second, use);
    }
    if (read.ok()) context_.stats->disk_restores.Add();
    use->ready(std::move(read));
  });
}

absl::Status SessionTurns::ReserveFor(const Session& session, SessionUse* use) {
  const int64_t seen = session.now.state != nullptr ? session.now.state->info.seen() : 0;
  // The last token of the history is computed first.
  use->room_bytes = context_.states->BytesAt(seen + 1 + use->most_tokens);
  absl::Status status = context_.states->Reserve(use->room_bytes, use->room_bytes, &use->room);
  if (!status.ok() && MayReplace(session)) {
    const int64_t old_bytes = context_.states->BytesAt(seen);
    if (context_.states->ReserveInPlace(use->room_bytes, old_bytes, &use->room).ok()) {
      use->in_place = true;
      return absl::OkStatus();
    }
  }
  if (!status.ok()) context_.stats->room_refusals.Add();
  return status;
}

bool SessionTurns::MayReplace(const Session& session) const {
  const StatePtr& state = session.now.state;
  if (state == nullptr) return false;
  if (context_.setup->has_store && session.stored_state != state) return false;
  int64_t own = 0;
  for (const StatePtr* one : {&state, &session.stored_state, &session.out.state}) {
    if (*one == state) ++own;
  }
  return state.use_count() == own;
}

absl::Status SessionTurns::KeepState(Session* session) {
  SessionUse* writer = session->writer.get();
  if (writer == nullptr || !writer->in_place || writer->outdated) return absl::OkStatus();
  absl::Status status = absl::ResourceExhaustedError(
      "the session's state is being replaced, and there is no room to keep it");
  const int64_t bytes = writer->room_bytes;
  if (!writer->committing) status = context_.states->Reserve(bytes, bytes, &writer->room);
  if (status.ok()) {
    writer->in_place = false;
  } else {
    context_.stats->room_refusals.Add();
  }
  return status;
}

void SessionTurns::LeavePlace(SessionUse* use) {
  use->pin.Release();
  use->state.reset();
  use->room.Release();
  context_.states->Trim();
}

void SessionTurns::StartNext(Session* session) {
  while (session->phase == SessionPhase::kLive && session->writer == nullptr &&
         !session->waiting.empty() && owners_->MayStart(*session)) {
    const std::shared_ptr<SessionUse> next = std::move(session->waiting.front());
    session->waiting.pop_front();
    Start(session, next);
  }
}

void SessionTurns::Release(const std::shared_ptr<SessionUse>& use) {
  if (std::exchange(use->released, true)) return;
  use->pin.Release();
  use->room.Release();
  use->state.reset();
  use->ready = nullptr;
  Session* session = std::exchange(use->session, nullptr);
  if (session == nullptr) return;
  const auto waiting = std::find(session->waiting.begin(), session->waiting.end(), use);
  if (waiting != session->waiting.end()) session->waiting.erase(waiting);
  // Other daemons may have to be asked for the session, or may have it now.
  if (context_.setup->shared) queue_->Enqueue(session);
  if (session->writer != use) return;
  table_->SetWriter(session, nullptr);
  expiry_->Touch(session);
  StartNext(session);
}

SessionInfo SessionTurns::Committed(const Session& session) const {
  SessionInfo info = table_->Info(session);
  info.busy = false;  // by the time it is read
  return info;
}

void SessionTurns::Commit(const std::shared_ptr<SessionUse>& use, StateInfo info, int32_t slot,
                          HostState data, const std::string& request_id, bool durable,
                          Done<SessionInfo> done) {
  SLUICE_CHECK(use->writes && !use->released);
  StateCache* states = context_.states;
  StatePtr state = data == nullptr
                       ? states->AdoptSlot(std::move(info), slot, &use->room)
                       : states->AdoptData(std::move(info), std::move(data), &use->room);
  Session* session = use->session;
  if (session == nullptr) return done(absl::NotFoundError("the session was deleted meanwhile"));
  if (use->outdated) return done(LostRace());
  const auto apply = [this, state = std::move(state), request_id,
                      etag = table_->RandomId()](SessionContent* content) {
    content->state = state;
    content->last_request_id = request_id;
    content->etag = etag;
    content->update_time = context_.clock->WallNow();
  };
  use->committing = true;
  if (durable && context_.setup->has_store) {
    PendingChange change;
    change.apply = apply;
    change.done = [this, use, session, done = std::move(done)](absl::Status stored) {
      if (!stored.ok()) return done(stored);
      context_.stats->commits.Add();
      done(Committed(*session));
    };
    // The old state's file is there should this fail.
    if (use->in_place) LeavePlace(use.get());
    return writer_->Change(session, std::move(change));
  }
  auto acknowledge = [this, use, session, apply, done = std::move(done)](absl::Status marked) {
    if (!marked.ok()) return done(marked);
    apply(&session->now);
    if (use->in_place) LeavePlace(use.get());
    ++session->version;
    context_.stats->commits.Add();
    if (context_.setup->has_store) queue_->Enqueue(session);
    done(Committed(*session));
  };
  // A job that is out may take the mark away at its end.
  if (!context_.setup->shared || (session->marked && !session->job_out)) {
    return acknowledge(absl::OkStatus());
  }
  session->marks.push_back(std::move(acknowledge));
  queue_->Enqueue(session);
}

}  // namespace sluice
