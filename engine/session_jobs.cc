// Sessions and the store: what is to be read and written, and what comes of it.
//
// Each session has one job out at most. What it says in memory is written as it is by the time the
// job goes out, so that commits that come faster than the disk is leave out the ones between.

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/sessions.h"
#include "kernels/check.h"

namespace sluice {
namespace {

constexpr absl::Duration kLongestBackoff = absl::Minutes(1);

}  // namespace

absl::Status LostRace() {
  return absl::AbortedError("another daemon has changed the session meanwhile");
}

bool IsLostRace(const absl::Status& status) { return status == LostRace(); }

void Sessions::Enqueue(Session* session) {
  if (std::exchange(session->queued, true)) return;
  queue_.push_back(session->key);
}

bool Sessions::jobs_outstanding() const {
  size_t idle = 0;
  for (const uint64_t job : {idle_read_, requests_job_, list_job_}) idle += job != 0 ? 1 : 0;
  if (!releases_.empty() || !to_list_.empty()) return true;
  return !queue_.empty() || !fetches_.empty() || out_.size() > idle;
}

void Sessions::PrepareToStop() {
  unread_.clear();
  stopping_ = true;
  std::vector<std::function<void(absl::Status)>> told;
  for (auto& [key, session] : sessions_) {
    for (SessionWait& wait : session->for_owner) told.push_back(std::move(wait.then));
    for (SessionWait& wait : session->for_written) told.push_back(std::move(wait.then));
    session->for_owner.clear();
    session->for_written.clear();
  }
  for (const auto& then : told) then(absl::UnavailableError("the daemon is shutting down"));
  for (const auto& [when, key] : std::exchange(retries_, {})) {
    Session* session = Lookup(key);
    if (session == nullptr) continue;
    session->backing_off = false;
    Enqueue(session);
  }
}

void Sessions::GiveUp(const absl::Status& why) {
  std::vector<std::function<void(absl::Status)>> told;
  for (auto& [key, session] : sessions_) {
    for (PendingChange& change : session->changes) told.push_back(std::move(change.done));
    for (const auto& use : session->waiting) {
      use->session = nullptr;
      told.push_back(use->ready);
    }
    for (auto& wait : TakeWaits(session.get())) told.push_back(std::move(wait));
    for (auto& mark : std::exchange(session->marks, {})) told.push_back(std::move(mark));
    for (auto& check : std::exchange(session->on_checked, {})) told.push_back(std::move(check));
    std::move(session->on_deleted.begin(), session->on_deleted.end(), std::back_inserter(told));
    session->changes.clear();
    session->waiting.clear();
    session->on_deleted.clear();
  }
  const auto fail = [&](const StatePtr& state) {
    std::move(state->on_data.begin(), state->on_data.end(), std::back_inserter(told));
    state->on_data.clear();
  };
  const auto end = [&](const std::vector<std::shared_ptr<Listing>>& listings) {
    for (const auto& listing : listings) told.push_back(listing->done);
  };
  for (const auto& [tenant, listings] : std::exchange(to_list_, {})) end(listings);
  for (const auto& [job, listings] : std::exchange(listing_, {})) end(listings);
  for (const StatePtr& state : fetches_) fail(state);
  for (const auto& [job, state] : fetching_) fail(state);
  // One of its own for each: the threads that they end up on share none (device_thread.cc).
  for (const auto& done : told) done(absl::Status(why.code(), why.message()));
}

int64_t Sessions::unwritten() const {
  if (!setup_.has_store) return 0;
  return std::count_if(sessions_.begin(), sessions_.end(), [](const auto& entry) {
    const Session& session = *entry.second;
    return session.phase == SessionPhase::kLive && session.version != session.stored_version;
  });
}

absl::Duration Sessions::NextDeadline() const {
  absl::Duration next = absl::InfiniteDuration();
  if (!expiries_.empty()) next = expiries_.begin()->first;
  if (!retries_.empty()) next = std::min(next, retries_.begin()->first);
  if (!setup_.shared || stopping_) return next;
  if (!looks_.empty()) next = std::min(next, looks_.begin()->first);
  if (!owned_.empty() && requests_job_ == 0) next = std::min(next, next_requests_);
  if (list_job_ == 0) next = std::min(next, next_list_);
  return next;
}

std::vector<std::unique_ptr<StoreJob>> Sessions::TakeJobs() {
  std::vector<std::unique_ptr<StoreJob>> jobs;
  if (!setup_.has_store) return jobs;
  const absl::Duration now = clock_->Now();
  while (!retries_.empty() && retries_.begin()->first <= now) {
    Session* session = Lookup(retries_.begin()->second);
    retries_.erase(retries_.begin());
    if (session == nullptr) continue;
    session->backing_off = false;
    Enqueue(session);
  }
  if (setup_.shared) AddSharedJobs(now, &jobs);
  // Reads first: a write may take the file away.
  for (size_t left = fetches_.size(); left > 0; --left) {
    StatePtr state = std::move(fetches_.front());
    fetches_.pop_front();
    if (auto job = MakeFetch(state)) {
      jobs.push_back(std::move(job));
    } else if (state->fetching) {
      fetches_.push_back(std::move(state));
    }
  }
  for (size_t left = queue_.size(); left > 0; --left) {
    const SessionKey key = std::move(queue_.front());
    queue_.pop_front();
    Session* session = Lookup(key);
    if (session == nullptr || !session->queued) continue;
    session->queued = false;
    if (auto job = MakeJob(session)) jobs.push_back(std::move(job));
  }
  while (jobs.empty() && idle_read_ == 0 && !unread_.empty()) {
    Session* session = Lookup(unread_.front());
    unread_.pop_front();
    if (session == nullptr || session->phase != SessionPhase::kUnread || session->job_out) continue;
    jobs.push_back(NewJob(StoreJob::Kind::kReadRecord, session));
    idle_read_ = jobs.back()->id;
  }
  return jobs;
}

std::unique_ptr<StoreJob> Sessions::NewJob(StoreJob::Kind kind, Session* session) {
  auto job = std::make_unique<StoreJob>();
  job->kind = kind;
  job->id = ++last_job_;
  job->record.tenant = session->key.first;
  job->record.id = session->key.second;
  job->record.generation = session->generation;
  job->record.file_number = session->file_number;
  session->job_out = true;
  out_[job->id].push_back(session->key);
  return job;
}

std::unique_ptr<StoreJob> Sessions::MakeJob(Session* session) {
  if (session->job_out) return nullptr;  // JobDone comes back to it
  if (!session->on_checked.empty()) {
    if (session->phase == SessionPhase::kLive && session->stored_state != nullptr) {
      auto job = NewJob(StoreJob::Kind::kCheckState, session);
      job->record = RecordOf(*session, session->now);
      job->record.info = session->stored_state->info;
      job->record.state_id = session->stored_state_id;
      return job;
    }
    for (const auto& checked : std::exchange(session->on_checked, {})) checked(LostRace());
  }
  const bool stored =
      session->phase == SessionPhase::kLive || session->phase == SessionPhase::kUnread;
  if (stored && MustLook(*session)) return LookJob(session);
  if (session->phase == SessionPhase::kUnread) {
    const bool wanted = !session->on_read.empty() || !session->waiting.empty();
    if (wanted || session->owned) {
      auto job = NewJob(StoreJob::Kind::kReadRecord, session);
      job->own = session->owned;
      return job;
    }
    return nullptr;
  }
  if (!session->marks.empty()) return NewJob(StoreJob::Kind::kMark, session);
  while (!session->changes.empty()) {
    const absl::Status status = CheckEtag(*session, session->changes.front().etag);
    if (status.ok()) break;
    const PendingChange refused = std::move(session->changes.front());
    session->changes.pop_front();
    refused.done(status);
  }
  if (!session->changes.empty()) return PutJob(session);
  if (session->phase == SessionPhase::kDeleting) {
    return MayDropFile(session) ? NewJob(StoreJob::Kind::kDelete, session) : nullptr;
  }
  const bool dirty = session->version != session->stored_version;
  if (dirty) return session->backing_off ? nullptr : PutJob(session);
  if (session->touched) return TouchJob(session);
  return session->owned && IsIdle(*session, /*with_change=*/false) ? ReleaseJob(session) : nullptr;
}

std::unique_ptr<StoreJob> Sessions::TouchJob(Session* session) {
  auto job = NewJob(StoreJob::Kind::kTouch, session);
  job->record.last_use_us =
      absl::ToUnixMicros(clock_->WallNow() - (clock_->Now() - session->last_use));
  session->touched = false;
  session->told_use = session->last_use;
  session->disk_use = absl::FromUnixMicros(job->record.last_use_us);
  return job;
}

std::unique_ptr<StoreJob> Sessions::PutJob(Session* session) {
  SessionContent content = session->now;
  const bool has_change = !session->changes.empty();
  if (has_change) session->changes.front().apply(&content);

  const StatePtr state = content.state;
  Session* source = nullptr;
  if (state != nullptr && state != session->stored_state) {
    for (const SessionKey& key : state->holders) {
      Session* holder = Lookup(key);
      if (holder != nullptr && !holder->job_out) source = holder;
    }
    if (source == nullptr && !state->data_ready()) {
      if (states_->device_failed()) return FailPut(session);
      if (state->holders.empty() && !state->has_data() && !state->fetching) {
        // Another daemon has moved on the session whose file it was.
        if (session->phase != SessionPhase::kCreating) return LoseRace(session), nullptr;
        return Remove(session, LostRace()), nullptr;
      }
      Enqueue(session);  // until its data has come, or a session that has its file is free
      return nullptr;
    }
  }
  if (state != session->stored_state && !MayDropFile(session)) return nullptr;
  auto job = NewJob(StoreJob::Kind::kPutRecord, session);
  job->record = RecordOf(*session, content);
  job->record.generation = session->generation + 1;
  if (source != nullptr) {
    job->source = RecordOf(*source, source->now);
    job->source.info = state->info;
    job->source.state_id = source->stored_state_id;
    source->job_out = true;
    out_[job->id].push_back(source->key);
    if (setup_.shared && state->data_ready()) {
      job->data = state->data();  // another daemon may have taken the file away
      session->out_data_pin = Pin(state);
    }
  } else if (state != nullptr && state != session->stored_state) {
    job->data = state->data();
  }
  session->out = std::move(content);
  session->out_version = session->version;
  session->out_has_change = has_change;
  session->touched = false;
  session->told_use = clock_->Now();
  session->disk_use = absl::FromUnixMicros(job->record.last_use_us);
  if (setup_.shared) {
    job->quota = {setup_.limits.max_sessions, setup_.limits.max_sessions_per_tenant};
  }
  if (session->owned && IsIdle(*session, has_change)) {
    job->after = LockAfter::kFree;
    SetOwned(session, false);
  } else if (session->owned) {
    job->after = LockAfter::kCall;
  }
  return job;
}

bool Sessions::MayDropFile(Session* session) {
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
  Enqueue(session);
  return false;
}

SessionRecord Sessions::RecordOf(const Session& session, const SessionContent& content) const {
  SessionRecord record;
  record.tenant = session.key.first;
  record.id = session.key.second;
  record.affinity = session.affinity;
  record.generation = session.generation;
  record.etag = content.etag;
  if (content.state != nullptr) {
    record.info = content.state->info;
    if (content.state == session.stored_state) record.state_id = session.stored_state_id;
  }
  record.fingerprint = session.fingerprint;
  record.last_request_id = content.last_request_id;
  record.create_time_us = absl::ToUnixMicros(session.create_time);
  record.update_time_us = absl::ToUnixMicros(content.update_time);
  record.last_use_us = absl::ToUnixMicros(clock_->WallNow());
  record.ttl_us =
      content.ttl == absl::InfiniteDuration() ? -1 : absl::ToInt64Microseconds(content.ttl);
  record.labels = content.labels;
  return record;
}

// ---- What comes back ----

void Sessions::JobDone(std::unique_ptr<StoreJob> job) {
  const auto out = out_.find(job->id);
  SLUICE_CHECK(out != out_.end());
  const std::vector<SessionKey> keys = std::move(out->second);
  out_.erase(out);
  if (idle_read_ == job->id) idle_read_ = 0;
  stats_->quarantined.Add(
      static_cast<uint64_t>(std::max<int64_t>(0, job->quarantined - quarantined_)));
  quarantined_ = std::max(quarantined_, job->quarantined);
  if (job->kind == StoreJob::Kind::kRequests) return RequestsDone(*job);
  if (job->kind == StoreJob::Kind::kList) return ListDone(*job);
  if (keys.empty()) return;  // a session that is gone was let go of
  for (const SessionKey& key : keys) Lookup(key)->job_out = false;
  Session* session = Lookup(keys.front());
  const Pin lent = std::move(session->out_pin);  // until nobody takes it for a copy of a file
  session->out_data_pin.Release();
  switch (job->kind) {
    case StoreJob::Kind::kReadRecord:
      ReadDone(session, job.get());
      break;
    case StoreJob::Kind::kPutRecord:
      PutDone(session, job.get());
      break;
    case StoreJob::Kind::kDelete:
      DeleteDone(session, job.get());
      break;
    case StoreJob::Kind::kReadState:
      FetchDone(session, job.get());
      break;
    case StoreJob::Kind::kCheckState:
      CheckDone(session, job->status);
      break;
    case StoreJob::Kind::kMark:
      MarkDone(session, job->status);
      break;
    case StoreJob::Kind::kTouch:  // of a record that was replaced meanwhile: it says more
    case StoreJob::Kind::kRelease:
    case StoreJob::Kind::kRequests:
    case StoreJob::Kind::kList:
      break;
  }
  for (const SessionKey& key : keys) {
    if (Session* free = Lookup(key)) Enqueue(free);
  }
}

void Sessions::SetStored(Session* session, StatePtr state, const std::string& state_id) {
  session->stored_state_id = state_id;
  if (state == session->stored_state) return;
  if (session->stored_state != nullptr) session->stored_state->holders.erase(session->key);
  if (state != nullptr) state->holders.insert(session->key);
  session->stored_state = std::move(state);
}

void Sessions::PutDone(Session* session, StoreJob* job) {
  const SessionContent out = std::exchange(session->out, {});
  if (job->status.ok()) {
    if (job->after != LockAfter::kAsBefore) session->marked = false;
    session->generation = job->record.generation;
    session->file_number = job->record.file_number;
    session->stored_version = session->out_version;
    session->backoff = absl::Seconds(1);
    SetStored(session, out.state, job->record.state_id);
    if (!session->out_has_change) return;
    const PendingChange change = std::move(session->changes.front());
    session->changes.pop_front();
    if (session->phase == SessionPhase::kCreating) session->phase = SessionPhase::kLive;
    if (session->version == session->out_version) {
      session->now = out;
      session->stored_version = ++session->version;
    } else {
      // A commit came between: what is on disk has the change's etag, and is not what this is.
      change.apply(&session->now);
      session->now.etag = RandomId();
      ++session->version;
    }
    return change.done(absl::OkStatus());
  }
  if (job->after == LockAfter::kFree) SetOwned(session, true);  // the lock was kept
  if (absl::IsAborted(job->status) || absl::IsAlreadyExists(job->status) ||
      absl::IsNotFound(job->status)) {
    // NOT_FOUND: deleted by another daemon; of a new one, the file it was to share.
    if (session->phase == SessionPhase::kCreating && absl::IsNotFound(job->status)) {
      return Remove(session, LostRace());
    }
    if (session->phase == SessionPhase::kCreating) {
      return Remove(session, absl::AlreadyExistsError(
                                 absl::StrCat("session '", session->key.second, "' exists")));
    }
    return LoseRace(session);
  }
  const bool is_new = session->phase == SessionPhase::kCreating;
  // A bound on the directory's sessions is no error of the store.
  if (!is_new || !setup_.shared || !absl::IsResourceExhausted(job->status)) {
    stats_->store_errors.Add();
  }
  if (is_new) return Remove(session, job->status);
  if (session->out_has_change) {
    const PendingChange change = std::move(session->changes.front());
    session->changes.pop_front();
    return change.done(job->status);
  }
  Retry(session);
}

void Sessions::DeleteDone(Session* session, StoreJob* job) {
  if (job->status.ok() || absl::IsNotFound(job->status)) {
    if (job->status.ok()) SetOwned(session, false);  // the store has let go of it
    return Remove(session, absl::OkStatus());
  }
  if (absl::IsAborted(job->status)) return LoseRace(session);
  // Whether it is still there the disk knows better.
  stats_->store_errors.Add();
  Reread(session, job->status);
}

void Sessions::LoseRace(Session* session) {
  stats_->lost_races.Add();
  Reread(session, LostRace());
}

void Sessions::Reread(Session* session, const absl::Status& why) {
  session->phase = SessionPhase::kUnread;
  SetExpiry(session, absl::InfiniteDuration());
  unread_.push_back(session->key);
  if (session->writer != nullptr) session->writer->outdated = true;
  const auto changes = std::exchange(session->changes, {});
  const auto deleted = std::exchange(session->on_deleted, {});
  Enqueue(session);
  for (const PendingChange& change : changes) change.done(why);
  for (const auto& done : deleted) done(why);
}

// What the session says is in a state that will never arrive.
std::unique_ptr<StoreJob> Sessions::FailPut(Session* session) {
  const absl::Status why = absl::UnavailableError("the device has failed");
  if (session->phase == SessionPhase::kCreating) return Remove(session, why), nullptr;
  if (session->changes.empty()) return nullptr;
  const PendingChange change = std::move(session->changes.front());
  session->changes.pop_front();
  const SessionKey key = session->key;
  change.done(why);
  session = Lookup(key);
  return session != nullptr ? MakeJob(session) : nullptr;  // the next change may do without
}

void Sessions::Retry(Session* session) {
  session->backing_off = true;
  retries_.emplace(clock_->Now() + session->backoff, session->key);
  session->backoff = std::min(2 * session->backoff, kLongestBackoff);
}

}  // namespace sluice
