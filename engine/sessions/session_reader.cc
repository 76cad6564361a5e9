#include "engine/sessions/session_reader.h"

#include <utility>

namespace sluice {
namespace {

// Whoever asks for the newest state gives another daemon this long to write it.
constexpr absl::Duration kWriting = absl::Seconds(2);

bool IsStored(const Session& session) {
  return session.phase == SessionPhase::kLive || session.phase == SessionPhase::kUnread;
}

}  // namespace

void SessionReader::Find(absl::string_view tenant, const std::string& id, Found found) {
  SessionKey key(std::string(tenant), id);
  Session* session = table_->FindOrInsert(key);
  if (session == nullptr) return found(SessionTable::NotFound(key));
  switch (session->phase) {
    case SessionPhase::kLive:
      if (!owners_->MustLook(*session)) return found(session);
      break;
    case SessionPhase::kCreating:
    case SessionPhase::kDeleting:
      return found(SessionTable::NotFound(key));
    case SessionPhase::kUnread:
      break;
  }
  session->on_read.push_back([this, key, found = std::move(found)](absl::Status status) {
    if (!status.ok()) return found(status);
    Session* read = table_->Find(key);
    if (read == nullptr || read->phase != SessionPhase::kLive) {
      return found(SessionTable::NotFound(key));
    }
    found(read);
  });
  queue_->Enqueue(session);
}

void SessionReader::FindOwned(absl::string_view tenant, const std::string& id, SessionWish wish,
                              absl::Duration patience, Found found) {
  const SessionKey key(std::string(tenant), id);
  Session* session = context_.setup->shared ? table_->FindOrInsert(key) : nullptr;
  const bool must_wait = session != nullptr && !session->owned && IsStored(*session);
  if (!must_wait) return Find(tenant, id, std::move(found));
  session->for_owner.push_back({wish, context_.clock->Now() + patience,
                                [this, key, found = std::move(found)](absl::Status status) {
                                  if (!status.ok()) return found(status);
                                  Session* owned = table_->Find(key);
                                  if (owned == nullptr || owned->phase != SessionPhase::kLive) {
                                    return found(SessionTable::NotFound(key));
                                  }
                                  found(owned);
                                }});
  queue_->Enqueue(session);
}

void SessionReader::CheckState(Session* session, std::function<void(absl::Status)> checked) {
  const StatePtr& state = session->now.state;
  if (state == nullptr || state->has_data() || state->fetching || state != session->stored_state) {
    return checked(absl::OkStatus());
  }
  session->on_checked.push_back(std::move(checked));
  queue_->Enqueue(session);
}

// ---- What is asked ----

bool SessionReader::MustRead(const Session& session) const {
  return session.phase == SessionPhase::kUnread ||
         (IsStored(session) && owners_->MustLook(session));
}

std::unique_ptr<StoreJob> SessionReader::CheckJob(Session* session) {
  if (session->on_checked.empty()) return nullptr;
  if (session->phase == SessionPhase::kLive && session->stored_state != nullptr) {
    auto job = queue_->NewJob(StoreJob::Kind::kCheckState, session);
    job->record = RecordOf(*session, session->now, context_.clock->WallNow());
    job->record.info = session->stored_state->info;
    job->record.state_id = session->stored_state_id;
    job->trusted = session->stored_state->checked;
    job->file = session->stored_state->file;
    return job;
  }
  for (const auto& checked : std::exchange(session->on_checked, {})) checked(LostRace());
  return nullptr;
}

std::unique_ptr<StoreJob> SessionReader::ReadJob(Session* session) {
  if (owners_->MustLook(*session)) return LookJob(session);
  const bool wanted = !session->on_read.empty() || !session->waiting.empty();
  if (!wanted && !session->owned) return nullptr;
  auto job = queue_->NewJob(StoreJob::Kind::kReadRecord, session);
  job->own = session->owned;
  return job;
}

std::unique_ptr<StoreJob> SessionReader::LookJob(Session* session) {
  const bool claims = !session->waiting.empty() || !session->for_owner.empty();
  if (session->asking && !claims) return owners_->ReleaseJob(session);
  if (session->phase == SessionPhase::kUnread && !session->indexed && !claims &&
      session->on_read.empty() && session->for_written.empty()) {
    return endings_->Remove(session, absl::OkStatus()), nullptr;  // whoever asked for it has left
  }
  const bool due = context_.clock->Now() >= session->look_at;
  const bool again = due && (claims || !session->for_written.empty());
  if (session->on_read.empty() && !again) {  // a timer comes back to it, if any
    const bool touch = session->touched && session->phase == SessionPhase::kLive;
    return touch ? expiry_->TouchJob(session) : nullptr;
  }
  auto job = queue_->NewJob(StoreJob::Kind::kReadRecord, session);
  if (claims && due) {
    job->own = true;
    job->wish = SessionOwners::WishOf(*session);
    session->asking = job->wish != SessionWish::kNone;
  }
  session->reading = std::exchange(session->on_read, {});
  return job;
}

// ---- What comes back ----

void SessionReader::ReadDone(Session* session, StoreJob* job) {
  absl::Status status = job->status;
  if (job->owned) owners_->SetOwned(session, true);
  if (status.ok()) status = TakeRecord(session, job->record, job->unchanged);
  if (!status.ok()) {
    if (absl::IsDataLoss(status)) return endings_->Lose(session, status);
    const bool gone = absl::IsNotFound(status);
    if (gone) {
      // A client is not told how the store found out.
      status = SessionTable::NotFound(session->key);
    } else {
      context_.stats->store_errors.Add();
    }
    if (gone || !session->indexed) return endings_->Remove(session, status);
  }
  const SessionKey key = session->key;
  if (status.ok() && context_.setup->shared) return LookDone(key, *job);
  const Waits readers = TakeWaits(session);
  const Waits waiting = status.ok() ? Waits() : TakeWaiting(session);
  for (const auto& tell : waiting) tell(status);
  for (const auto& read : readers) read(status);
  session = table_->Find(key);
  if (session != nullptr) on_live_(session);
}

absl::Status SessionReader::TakeRecord(Session* session, const SessionRecord& record,
                                       bool unchanged) {
  const StateInfo& info = record.info;
  const bool ours = record.fingerprint == context_.setup->fingerprint;
  if (ours && info.position > 0 &&
      (info.last_token < 0 || info.last_token >= context_.setup->vocab)) {
    return absl::DataLossError("the session's record names a token that the model does not have");
  }
  // In a directory that is shared, a session deleted and made again may have come as far.
  const bool same = context_.setup->shared ? unchanged : session->generation == record.generation;
  if (session->stored_version > 0 && same) {
    // Nobody else has written it: what is in memory is newer, if it differs at all.
    session->phase = SessionPhase::kLive;
    expiry_->TakeLastUse(session, record);
    return absl::OkStatus();
  }
  session->lost = false;
  table_->CountUnread(session, false);
  table_->Index(session);
  StatePtr state;
  if (info.position > 0) {
    const bool has_it =
        session->stored_state != nullptr && session->stored_state_id == record.state_id;
    state = has_it ? session->stored_state : context_.states->AdoptFile(info);
    // Another daemon wrote it while this one knew the session: nobody needs to try it.
    if (session->stored_version > 0) state->checked = true;
  }
  SetStored(session, state, record.state_id);
  session->phase = SessionPhase::kLive;
  session->affinity = record.affinity;
  session->fingerprint = record.fingerprint;
  session->generation = record.generation;
  session->file_number = record.file_number;
  session->create_time = absl::FromUnixMicros(record.create_time_us);
  session->stored_version = ++session->version;
  SessionContent& now = session->now;
  now.etag = record.etag;
  now.state = std::move(state);
  now.last_request_id = record.last_request_id;
  now.ttl = record.ttl_us < 0 ? absl::InfiniteDuration() : absl::Microseconds(record.ttl_us);
  now.labels = record.labels;
  now.update_time = absl::FromUnixMicros(record.update_time_us);
  expiry_->TakeLastUse(session, record);
  return absl::OkStatus();
}

void SessionReader::LookDone(const SessionKey& key, const StoreJob& job) {
  Session* session = table_->Find(key);
  session->busy_elsewhere = job.holder == SessionHolder::kCall;
  Waits served;
  if (job.owned) {
    served = TakeWaits(session);  // nothing is newer, whenever they came
  } else if (job.holder == SessionHolder::kUnwritten) {
    const absl::Duration until = context_.clock->Now() + kWriting;
    for (auto& read : std::exchange(session->reading, {})) {
      session->for_written.push_back({SessionWish::kNone, until, std::move(read)});
    }
  } else {
    served = std::exchange(session->reading, {});
    for (SessionWait& wait : std::exchange(session->for_written, {})) {
      served.push_back(std::move(wait.then));
    }
  }
  for (const auto& serve : served) serve(absl::OkStatus());
  session = table_->Find(key);
  if (session == nullptr) return;
  if (job.owned) return on_live_(session);
  owners_->HeldElsewhere(session, job.holder);
}

void SessionReader::CheckDone(Session* session, const StoreJob& job) {
  const absl::Status& status = job.status;
  const Waits checked = std::exchange(session->on_checked, {});
  absl::Status told = status;
  if (status.ok() && session->stored_state != nullptr &&
      session->stored_state_id == job.record.state_id) {
    session->stored_state->checked = true;
    session->stored_state->file = job.file;
  }
  if (absl::IsAborted(status)) {
    endings_->LoseRace(session);
    told = LostRace();
  } else if (absl::IsDataLoss(status)) {
    endings_->Lose(session, status);
  } else if (!status.ok()) {
    context_.stats->store_errors.Add();
  }
  for (const auto& tell : checked) tell(told);
}

}  // namespace sluice
