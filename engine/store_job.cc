#include "engine/store_job.h"

#include <utility>

#include "engine/state/session_store.h"

namespace sluice {

void RunStoreJob(SessionStore* store, StoreJob* job) {
  switch (job->kind) {
    case StoreJob::Kind::kReadRecord: {
      absl::StatusOr<SessionRecord> record = store->ReadRecord(job->record.tenant, job->record.id);
      job->status = record.status();
      if (record.ok()) job->record = *std::move(record);
      return;
    }
    case StoreJob::Kind::kPutRecord:
      job->status = store->PutRecord(&job->record, job->data.get(),
                                     job->source.id.empty() ? nullptr : &job->source);
      return;
    case StoreJob::Kind::kReadState: {
      absl::StatusOr<StateData> data = store->ReadState(job->record);
      job->status = data.status();
      if (data.ok()) job->data = std::make_shared<const StateData>(*std::move(data));
      return;
    }
    case StoreJob::Kind::kDelete:
      job->status = store->Delete(job->record.tenant, job->record.id, job->record.generation);
      return;
  }
}

}  // namespace sluice
