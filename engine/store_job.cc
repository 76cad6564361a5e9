#include "engine/store_job.h"

#include <utility>

namespace sluice {
namespace {

SessionLocks::Key KeyOf(const StoreJob& job) { return {job.record.tenant, job.record.id}; }

// Takes the session's lock, or asks whoever has it; says who that is.
absl::Status TakeLock(SessionLocks* locks, StoreJob* job) {
  const SessionLocks::Key key = KeyOf(*job);
  if (job->own) {
    const absl::StatusOr<bool> owned = locks->Own(key);
    if (!owned.ok()) return owned.status();
    job->owned = *owned;
    if (job->owned) return locks->Ask(key, SessionWish::kNone);
    const absl::Status asked = locks->Ask(key, job->wish);
    if (!asked.ok()) return asked;
  }
  // Before the record is read: what was acknowledged is in it, or marked now.
  const absl::StatusOr<SessionHolder> holder = locks->HolderOf(key);
  if (holder.ok()) job->holder = *holder;
  return holder.status();
}

void ReadRecord(SessionStore* store, StoreJob* job) {
  SessionLocks* const locks = store->locks();
  if (locks != nullptr) job->status = TakeLock(locks, job);
  if (job->status.ok()) {
    const uint64_t generation = job->record.generation;
    const uint64_t file = job->record.file_number;
    absl::StatusOr<SessionRecord> record =
        locks != nullptr ? store->ReadNewer(job->record)
                         : store->ReadRecord(job->record.tenant, job->record.id);
    job->status = record.status();
    if (record.ok()) {
      job->record = *std::move(record);
      job->unchanged = locks != nullptr && file != 0 && job->record.generation == generation &&
                       job->record.file_number == file;
    }
  }
  if (job->status.ok() || !job->owned) return;
  locks->Release(KeyOf(*job));
  job->owned = false;
}

void PutRecord(SessionStore* store, StoreJob* job) {
  job->status = store->PutRecord(&job->record, job->data.get(),
                                 job->source.id.empty() ? nullptr : &job->source, job->quota);
  if (!job->status.ok()) return;
  if (job->after == LockAfter::kFree) store->locks()->Release(KeyOf(*job));
  // Should it fail, the others wait for what is written already, and this session's release.
  if (job->after == LockAfter::kCall) store->locks()->Mark(KeyOf(*job), false).IgnoreError();
}

void ReadRequests(SessionLocks* locks, StoreJob* job) {
  job->wishes.assign(job->names.size(), SessionWish::kNone);
  const absl::StatusOr<bool> any = locks->AnybodyAsks();
  job->status = any.status();
  if (!any.ok() || !*any) return;
  for (size_t i = 0; i < job->names.size(); ++i) {
    const absl::StatusOr<SessionWish> wish =
        locks->AskedOf({job->names[i].tenant, job->names[i].id});
    if (wish.ok()) job->wishes[i] = *wish;
  }
}

void ListNames(SessionStore* store, StoreJob* job) {
  absl::StatusOr<std::vector<SessionName>> names =
      store->ListNames(job->all ? nullptr : &job->record.tenant);
  job->status = names.status();
  if (!names.ok()) return;
  job->names = *std::move(names);
  if (job->all) job->states = store->CountStates(job->names);
}

void Run(SessionStore* store, StoreJob* job) {
  switch (job->kind) {
    case StoreJob::Kind::kReadRecord:
      return ReadRecord(store, job);
    case StoreJob::Kind::kPutRecord:
      return PutRecord(store, job);
    case StoreJob::Kind::kReadState: {
      absl::StatusOr<StateData> data = store->ReadState(job->record);
      job->status = data.status();
      if (data.ok()) job->data = std::make_shared<const StateData>(*std::move(data));
      return;
    }
    case StoreJob::Kind::kCheckState:
      job->status = store->CheckState(job->record, job->trusted, &job->file);
      return;
    case StoreJob::Kind::kTouch:
      job->status = store->TouchRecord(job->record);
      return;
    case StoreJob::Kind::kDelete:
      job->status = store->Delete(job->record.tenant, job->record.id, job->record.generation);
      if (job->status.ok() && store->locks() != nullptr) store->locks()->Release(KeyOf(*job));
      return;
    case StoreJob::Kind::kMark:
      job->status = store->locks()->Mark(KeyOf(*job), true);
      return;
    case StoreJob::Kind::kRelease:
      store->locks()->Ask(KeyOf(*job), SessionWish::kNone).IgnoreError();
      store->locks()->Release(KeyOf(*job));
      return;
    case StoreJob::Kind::kRequests:
      return ReadRequests(store->locks(), job);
    case StoreJob::Kind::kList:
      return ListNames(store, job);
  }
}

}  // namespace

void RunStoreJob(SessionStore* store, StoreJob* job) {
  Run(store, job);
  job->quarantined = store->quarantined();
}

}  // namespace sluice
