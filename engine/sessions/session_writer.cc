#include "engine/sessions/session_writer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr absl::Duration kFirstBackoff = absl::Seconds(1);
constexpr absl::Duration kLongestBackoff = absl::Minutes(1);

PendingChange TakeChange(Session* session) {
  PendingChange change = std::move(session->changes.front());
  session->changes.pop_front();
  return change;
}

}  // namespace

void SessionWriter::Change(Session* session, PendingChange change) {
  if (context_.setup->has_store) {
    session->changes.push_back(std::move(change));
    return queue_->Enqueue(session);
  }
  const absl::Status status = table_->CheckEtag(*session, change.etag);
  if (status.ok()) change.apply(&session->now);
  change.done(status);
}

std::unique_ptr<StoreJob> SessionWriter::MakeJob(Session* session) {
  if (!session->marks.empty()) return queue_->NewJob(StoreJob::Kind::kMark, session);
  while (!session->changes.empty()) {
    const absl::Status status = table_->CheckEtag(*session, session->changes.front().etag);
    if (status.ok()) return PutJob(session);
    TakeChange(session).done(status);
  }
  if (session->phase == SessionPhase::kDeleting) {
    return MayDropFile(session) ? queue_->NewJob(StoreJob::Kind::kDelete, session) : nullptr;
  }
  const bool dirty = session->version != session->stored_version;
  if (dirty) return session->backing_off ? nullptr : PutJob(session);
  if (session->touched) return expiry_->TouchJob(session);
  const bool let_go = session->owned && SessionOwners::IsIdle(*session, /*with_change=*/false);
  return let_go ? owners_->ReleaseJob(session) : nullptr;
}

std::unique_ptr<StoreJob> SessionWriter::PutJob(Session* session) {
  SessionContent content = session->now;
  const bool has_change = !session->changes.empty();
  if (has_change) session->changes.front().apply(&content);

  const StatePtr state = content.state;
  const bool new_state = state != session->stored_state;
  Session* source = nullptr;
  if (state != nullptr && new_state) {
    for (const SessionKey& key : state->holders) {
      Session* holder = table_->Find(key);
      if (holder != nullptr && !holder->job_out) source = holder;
    }
    if (source == nullptr && !state->data_ready()) {
      if (context_.states->device_failed()) return FailPut(session);
      if (state->holders.empty() && !state->has_data() && !state->fetching) {
        // Another daemon has moved on the session whose file it was.
        if (session->phase != SessionPhase::kCreating) {
          return endings_->LoseRace(session), nullptr;
        }
        return endings_->Remove(session, LostRace()), nullptr;
      }
      queue_->Enqueue(session);  // until its data has come, or a session that has its file is free
      return nullptr;
    }
  }
  if (new_state && !MayDropFile(session)) return nullptr;
  auto job = queue_->NewJob(StoreJob::Kind::kPutRecord, session);
  job->record = RecordOf(*session, content, context_.clock->WallNow());
  job->record.generation = session->generation + 1;
  if (source != nullptr) {
    SetSource(source, state, session, job.get());
  } else if (state != nullptr && new_state) {
    job->data = state->data();
  }
  session->out = std::move(content);
  session->out_version = session->version;
  session->out_has_change = has_change;
  expiry_->ToldNow(session, job->record.last_use_us);
  if (context_.setup->shared) {
    const SessionLimits& limits = context_.setup->limits;
    job->quota = {limits.max_sessions, limits.max_sessions_per_tenant};
  }
  if (session->owned && SessionOwners::IsIdle(*session, has_change)) {
    job->after = LockAfter::kFree;
    owners_->SetOwned(session, false);
  } else if (session->owned) {
    job->after = LockAfter::kCall;
  }
  return job;
}

void SessionWriter::SetSource(Session* source, const StatePtr& state, Session* session,
                              StoreJob* job) {
  job->source = RecordOf(*source, source->now, context_.clock->WallNow());
  job->source.info = state->info;
  job->source.state_id = source->stored_state_id;
  queue_->Lend(source, *job);
  if (!context_.setup->shared || !state->data_ready()) return;
  job->data = state->data();  // another daemon may have taken the file away
  session->out_data_pin = Pin(state);
}

bool SessionWriter::MayDropFile(Session* session) {
  const StatePtr& stored = session->stored_state;
  if (stored == nullptr || stored->holders.size() > 1) return true;
  const int64_t own = 1 + (session->now.state == stored ? 1 : 0);
  if (stored.use_count() == own) return true;
  // A fork, a reader: they need it after the file is gone, so it must be in memory and stay there,
  // or they go first.
  if (stored->data_ready()) {
    session->out_pin = Pin(stored);
    return true;
  }
  queue_->Enqueue(session);
  return false;
}

std::unique_ptr<StoreJob> SessionWriter::FailPut(Session* session) {
  const absl::Status why = absl::UnavailableError("the device has failed");
  if (session->phase == SessionPhase::kCreating) return endings_->Remove(session, why), nullptr;
  if (session->changes.empty()) return nullptr;
  const SessionKey key = session->key;
  TakeChange(session).done(why);
  session = table_->Find(key);
  // The next change may do without.
  const bool goes_on = session != nullptr && session->phase != SessionPhase::kUnread;
  return goes_on && !session->job_out ? MakeJob(session) : nullptr;
}

// ---- What comes back ----

void SessionWriter::PutDone(Session* session, StoreJob* job) {
  const SessionContent out = std::exchange(session->out, {});
  if (!job->status.ok()) return PutRefused(session, *job);
  if (job->after != LockAfter::kAsBefore) session->marked = false;
  session->generation = job->record.generation;
  session->file_number = job->record.file_number;
  session->stored_version = session->out_version;
  session->backoff = kFirstBackoff;
  SetStored(session, out.state, job->record.state_id);
  if (!session->out_has_change) return;
  const PendingChange change = TakeChange(session);
  if (session->phase == SessionPhase::kCreating) session->phase = SessionPhase::kLive;
  if (session->version == session->out_version) {
    session->now = out;
    session->stored_version = ++session->version;
  } else {
    // A commit came between: what is on disk has the change's etag, and is not what this is.
    change.apply(&session->now);
    session->now.etag = table_->RandomId();
    ++session->version;
  }
  change.done(absl::OkStatus());
}

void SessionWriter::PutRefused(Session* session, const StoreJob& job) {
  const absl::Status& status = job.status;
  const bool is_new = session->phase == SessionPhase::kCreating;
  if (job.after == LockAfter::kFree) owners_->SetOwned(session, true);  // the lock was kept
  if (absl::IsAborted(status) || absl::IsAlreadyExists(status) || absl::IsNotFound(status)) {
    if (!is_new) return endings_->LoseRace(session);
    // NOT_FOUND: the file that it was to share.
    if (absl::IsNotFound(status)) return endings_->Remove(session, LostRace());
    return endings_->Remove(session, absl::AlreadyExistsError(absl::StrCat(
                                         "session '", session->key.second, "' exists")));
  }
  // A bound on the directory's sessions is no error of the store.
  if (!is_new || !context_.setup->shared || !absl::IsResourceExhausted(status)) {
    context_.stats->store_errors.Add();
  }
  if (is_new) return endings_->Remove(session, status);
  if (session->out_has_change) return TakeChange(session).done(status);
  Retry(session);
}

void SessionWriter::DeleteDone(Session* session, StoreJob* job) {
  if (job->status.ok() || absl::IsNotFound(job->status)) {
    if (job->status.ok()) owners_->SetOwned(session, false);  // the store has let go of it
    return endings_->Remove(session, absl::OkStatus());
  }
  if (absl::IsAborted(job->status)) return endings_->LoseRace(session);
  // Only the disk knows whether it is still there.
  context_.stats->store_errors.Add();
  endings_->Reread(session, job->status);
}

void SessionWriter::MarkDone(Session* session, const absl::Status& status) {
  if (!status.ok()) context_.stats->store_errors.Add();
  session->marked = session->marked || status.ok();
  for (const auto& mark : std::exchange(session->marks, {})) mark(status);
}

void SessionWriter::Retry(Session* session) {
  queue_->EnqueueAt(session, context_.clock->Now() + session->backoff);
  session->backoff = std::min(2 * session->backoff, kLongestBackoff);
}

}  // namespace sluice
