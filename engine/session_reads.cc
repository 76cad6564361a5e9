// What sessions read of the store: records, and the states that they name.

#include <algorithm>
#include <utility>

#include "engine/sessions.h"
#include "kernels/check.h"

namespace sluice {

void Sessions::ReadDone(Session* session, StoreJob* job) {
  absl::Status status = job->status;
  if (job->owned) SetOwned(session, true);
  if (status.ok()) status = TakeRecord(session, job->record, job->unchanged);
  if (!status.ok()) {
    if (absl::IsDataLoss(status)) return Lose(session, status);
    const bool gone = absl::IsNotFound(status);
    if (gone) {
      status = NotFound(session->key);  // how the store found out is nobody's business
    } else {
      stats_->store_errors.Add();
    }
    if (gone || !session->indexed) return Remove(session, status);
  }
  const SessionKey key = session->key;
  if (status.ok() && setup_.shared) return LookDone(key, *job);
  const auto readers = TakeWaits(session);
  const auto waiting =
      status.ok() ? decltype(session->waiting)() : std::exchange(session->waiting, {});
  for (const auto& use : waiting) {
    use->session = nullptr;
    use->ready(status);
  }
  for (const auto& read : readers) read(status);
  session = Lookup(key);
  if (session != nullptr) StartNext(session);
}

absl::Status Sessions::TakeRecord(Session* session, const SessionRecord& record, bool unchanged) {
  const StateInfo& info = record.info;
  const bool ours = record.fingerprint == setup_.fingerprint;
  if (ours && info.position > 0 && (info.last_token < 0 || info.last_token >= setup_.vocab)) {
    return absl::DataLossError("the session's record names a token that the model does not have");
  }
  // In a directory that is shared, a session deleted and made again may have come as far.
  const bool same = setup_.shared ? unchanged : session->generation == record.generation;
  if (session->stored_version > 0 && same) {
    // Nobody else has written it: what is in memory is newer, if it differs at all.
    session->phase = SessionPhase::kLive;
    TakeLastUse(session, record);
    return absl::OkStatus();
  }
  session->lost = false;
  if (std::exchange(session->counted_unread, false)) states_->AddUnread(-1);
  if (!std::exchange(session->indexed, true)) {
    ++total_;
    ++per_tenant_[session->key.first];
  }
  StatePtr state;
  if (info.position > 0) {
    const bool has_it =
        session->stored_state != nullptr && session->stored_state_id == record.state_id;
    state = has_it ? session->stored_state : states_->AdoptFile(info);
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
  TakeLastUse(session, record);
  return absl::OkStatus();
}

std::unique_ptr<StoreJob> Sessions::MakeFetch(const StatePtr& state) {
  bool busy = false;
  for (const SessionKey& key : state->holders) {
    Session* holder = Lookup(key);
    if (holder == nullptr) continue;
    if (holder->job_out) {
      busy = true;
      continue;
    }
    auto job = NewJob(StoreJob::Kind::kReadState, holder);
    job->record = RecordOf(*holder, holder->now);
    job->record.info = state->info;
    job->record.state_id = holder->stored_state_id;
    fetching_[job->id] = state;
    return job;
  }
  if (!busy) FinishFetch(state, LostRace());
  return nullptr;
}

void Sessions::FetchDone(Session* holder, StoreJob* job) {
  const auto it = fetching_.find(job->id);
  const StatePtr state = std::move(it->second);
  fetching_.erase(it);
  absl::Status status = job->status;
  if (status.ok() &&
      (job->data == nullptr || static_cast<int64_t>(job->data->size()) != states_->state_bytes())) {
    status = absl::DataLossError("the session's state has another size than the model's");
  }
  if (status.ok()) {
    state->checked = true;
    states_->GiveData(state.get(), std::const_pointer_cast<StateData>(job->data),
                      &state->fetch_room);
    stats_->disk_restore_seconds.Observe(absl::ToDoubleSeconds(clock_->Now() - state->fetch_asked));
    job->data.reset();
  } else if (absl::IsAborted(status)) {
    // Another daemon has moved on the session whose file it was. Forks may still have the state.
    SetStored(holder, nullptr, "");
    LoseRace(holder);
    if (!state->holders.empty()) return fetches_.push_back(state);
    status = LostRace();
  } else {
    if (absl::IsNotFound(status)) status = absl::DataLossError("the session's state is gone");
    if (absl::IsDataLoss(status)) {
      Lose(holder, status);
    } else {
      stats_->store_errors.Add();
    }
  }
  FinishFetch(state, status);
}

void Sessions::CheckDone(Session* session, const absl::Status& status) {
  const SessionKey key = session->key;
  const auto checked = std::exchange(session->on_checked, {});
  absl::Status told = status;
  if (status.ok() && session->stored_state != nullptr) session->stored_state->checked = true;
  if (absl::IsAborted(status)) {
    LoseRace(session);
    told = LostRace();
  } else if (absl::IsDataLoss(status)) {
    Lose(session, status);
  } else if (!status.ok()) {
    stats_->store_errors.Add();
  }
  for (const auto& tell : checked) tell(told);
}

// It stays in the index, to be listed and deleted; each use looks at the disk again, where somebody
// may have mended it.
void Sessions::Lose(Session* session, const absl::Status& why) {
  if (!std::exchange(session->lost, true)) stats_->store_errors.Add();
  if (!std::exchange(session->indexed, true)) {
    ++total_;
    ++per_tenant_[session->key.first];
  }
  if (std::exchange(session->counted_unread, false)) states_->AddUnread(-1);
  session->phase = SessionPhase::kUnread;
  session->now.state.reset();
  SetStored(session, nullptr, "");
  session->stored_version =
      0;  // so that a record of the same generation is read, should it come back
  SetExpiry(session, absl::InfiniteDuration());
  if (session->writer != nullptr) session->writer->outdated = true;
  auto told = TakeWaits(session);
  for (auto& mark : std::exchange(session->marks, {})) told.push_back(std::move(mark));
  for (auto& change : std::exchange(session->changes, {})) told.push_back(std::move(change.done));
  for (auto& done : std::exchange(session->on_deleted, {})) told.push_back(std::move(done));
  for (auto& checked : std::exchange(session->on_checked, {})) told.push_back(std::move(checked));
  for (const auto& use : std::exchange(session->waiting, {})) {
    use->session = nullptr;
    told.push_back([use](absl::Status status) { use->ready(std::move(status)); });
  }
  for (const auto& tell : told) tell(why);
}

void Sessions::FinishFetch(const StatePtr& state, const absl::Status& status) {
  state->fetching = false;
  state->fetch_room.Release();
  const auto waiting = std::exchange(state->on_data, {});
  for (const auto& ready : waiting) ready(status);
}

}  // namespace sluice
