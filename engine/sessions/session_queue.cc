#include "engine/sessions/session_queue.h"

#include "kernels/check.h"

namespace sluice {

void SessionQueue::Enqueue(Session* session) {
  if (std::exchange(session->queued, true)) return;
  queue_.push_back(session->key);
}

void SessionQueue::EnqueueAt(Session* session, absl::Duration when) {
  session->backing_off = true;
  later_.emplace(when, session->key);
}

void SessionQueue::WakeUntil(absl::Duration now) {
  while (!later_.empty() && later_.begin()->first <= now) {
    Session* session = table_->Find(later_.begin()->second);
    later_.erase(later_.begin());
    if (session == nullptr) continue;
    session->backing_off = false;
    Enqueue(session);
  }
}

std::unique_ptr<StoreJob> SessionQueue::IdleJob() {
  while (idle_job_ == 0 && !idle_.empty()) {
    Session* session = table_->Find(idle_.front());
    idle_.pop_front();
    if (session == nullptr || session->phase != SessionPhase::kUnread || session->job_out) continue;
    auto job = NewJob(StoreJob::Kind::kReadRecord, session);
    idle_job_ = job->id;
    return job;
  }
  return nullptr;
}

std::unique_ptr<StoreJob> SessionQueue::NewJob(StoreJob::Kind kind) {
  auto job = std::make_unique<StoreJob>();
  job->kind = kind;
  job->id = ++last_job_;
  out_[job->id];
  return job;
}

std::unique_ptr<StoreJob> SessionQueue::NewJob(StoreJob::Kind kind, Session* session) {
  SLUICE_CHECK(!session->job_out);
  auto job = NewJob(kind);
  job->record.tenant = session->key.first;
  job->record.id = session->key.second;
  job->record.generation = session->generation;
  job->record.file_number = session->file_number;
  Lend(session, *job);
  return job;
}

void SessionQueue::Lend(Session* session, const StoreJob& job) {
  session->job_out = true;
  out_[job.id].push_back(session->key);
}

std::vector<SessionKey> SessionQueue::Return(const StoreJob& job) {
  const auto out = out_.find(job.id);
  SLUICE_CHECK(out != out_.end());
  std::vector<SessionKey> keys = std::move(out->second);
  out_.erase(out);
  if (idle_job_ == job.id) idle_job_ = 0;
  for (const SessionKey& key : keys) table_->Find(key)->job_out = false;
  return keys;
}

absl::Duration SessionQueue::NextDeadline() const {
  return later_.empty() ? absl::InfiniteDuration() : later_.begin()->first;
}

}  // namespace sluice
