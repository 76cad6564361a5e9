#include "engine/sessions/state_fetcher.h"

#include <iterator>
#include <utility>

namespace sluice {

void StateFetcher::Fetch(const StatePtr& state, std::function<void(absl::Status)> ready) {
  if (state->data_ready()) return ready(absl::OkStatus());
  if (state->has_data() && context_.states->device_failed()) {
    return ready(absl::UnavailableError("the device has failed"));
  }
  if (!state->has_data() && !state->fetching) {
    const int64_t bytes = context_.states->BytesAt(state->info.seen());
    const absl::Status status = context_.states->Reserve(bytes, 0, &state->fetch_room);
    if (!status.ok()) return ready(status);
  }
  state->on_data.push_back(std::move(ready));
  if (state->has_data() || state->fetching) return;
  state->fetching = true;
  state->fetch_asked = context_.clock->Now();
  wanted_.push_back(state);
}

void StateFetcher::AddJobs(std::vector<std::unique_ptr<StoreJob>>* jobs) {
  for (size_t left = wanted_.size(); left > 0; --left) {
    StatePtr state = std::move(wanted_.front());
    wanted_.pop_front();
    if (auto job = MakeJob(state)) {
      jobs->push_back(std::move(job));
    } else if (state->fetching) {
      wanted_.push_back(std::move(state));
    }
  }
}

std::unique_ptr<StoreJob> StateFetcher::MakeJob(const StatePtr& state) {
  bool busy = false;
  for (const SessionKey& key : state->holders) {
    Session* holder = table_->Find(key);
    if (holder == nullptr) continue;
    if (holder->job_out) {
      busy = true;
      continue;
    }
    auto job = queue_->NewJob(StoreJob::Kind::kReadState, holder);
    job->record = RecordOf(*holder, holder->now, context_.clock->WallNow());
    job->record.info = state->info;
    job->record.state_id = holder->stored_state_id;
    reading_[job->id] = state;
    return job;
  }
  if (!busy) Finish(state, LostRace());
  return nullptr;
}

void StateFetcher::Done(Session* holder, StoreJob* job) {
  const auto it = reading_.find(job->id);
  const StatePtr state = std::move(it->second);
  reading_.erase(it);
  absl::Status status = job->status;
  const int64_t bytes = context_.states->BytesAt(state->info.seen());
  if (status.ok() && (job->data == nullptr || static_cast<int64_t>(job->data->size()) != bytes)) {
    status = absl::DataLossError("the session's state has another size than the model's");
  }
  if (status.ok()) {
    state->checked = true;
    context_.states->GiveData(state.get(), std::const_pointer_cast<StateData>(job->data),
                              &state->fetch_room);
    context_.stats->disk_restore_seconds.Observe(
        absl::ToDoubleSeconds(context_.clock->Now() - state->fetch_asked));
    job->data.reset();
  } else if (absl::IsAborted(status)) {
    // Another daemon has moved on the session whose file it was. Forks may still have the state.
    SetStored(holder, nullptr, "");
    endings_->LoseRace(holder);
    if (!state->holders.empty()) return wanted_.push_back(state);
    status = LostRace();
  } else {
    if (absl::IsNotFound(status)) status = absl::DataLossError("the session's state is gone");
    if (absl::IsDataLoss(status)) {
      endings_->Lose(holder, status);
    } else {
      context_.stats->store_errors.Add();
    }
  }
  Finish(state, status);
}

void StateFetcher::Finish(const StatePtr& state, const absl::Status& status) {
  state->fetching = false;
  state->fetch_room.Release();
  const auto waiting = std::exchange(state->on_data, {});
  for (const auto& ready : waiting) ready(status);
}

Waits StateFetcher::TakeWaits() {
  Waits all;
  const auto take = [&](const StatePtr& state) {
    auto waiting = std::exchange(state->on_data, {});
    std::move(waiting.begin(), waiting.end(), std::back_inserter(all));
  };
  for (const StatePtr& state : wanted_) take(state);
  for (const auto& [job, state] : reading_) take(state);
  return all;
}

}  // namespace sluice
