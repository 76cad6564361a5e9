#include "engine/sessions/session_endings.h"

#include <iterator>
#include <memory>
#include <utility>

namespace sluice {
namespace {

void Append(Waits more, Waits* all) {
  std::move(more.begin(), more.end(), std::back_inserter(*all));
}

void AppendChanges(Session* session, Waits* all) {
  for (PendingChange& change : std::exchange(session->changes, {})) {
    all->push_back(std::move(change.done));
  }
}

}  // namespace

void SessionEndings::Remove(Session* session, const absl::Status& status) {
  if (session->writer != nullptr) {
    session->writer->session = nullptr;
    session->writer->outdated = true;
  }
  expiry_->Set(session, absl::InfiniteDuration());
  if (session->phase != SessionPhase::kUnread) {
    context_.stats->session_age_seconds.Observe(
        absl::ToDoubleSeconds(context_.clock->Now() - session->created));
  }
  owners_->LetGo(session);
  const std::unique_ptr<Session> gone = table_->Take(session);
  Waits told = TakeWaiting(gone.get());
  AppendChanges(gone.get(), &told);
  const Waits deleted = std::exchange(gone->on_deleted, {});
  Waits looks = TakeWaits(gone.get());
  Append(std::exchange(gone->on_checked, {}), &looks);
  const absl::Status why = status.ok() ? SessionTable::NotFound(gone->key) : status;
  for (const auto& tell : told) tell(why);
  for (const auto& tell : deleted) tell(status);
  for (const auto& tell : looks) tell(why);
}

void SessionEndings::LoseRace(Session* session) {
  context_.stats->lost_races.Add();
  Reread(session, LostRace());
}

void SessionEndings::Reread(Session* session, const absl::Status& why) {
  session->phase = SessionPhase::kUnread;
  expiry_->Set(session, absl::InfiniteDuration());
  queue_->EnqueueIdle(session);
  if (session->writer != nullptr) session->writer->outdated = true;
  Waits told;
  AppendChanges(session, &told);
  Append(std::exchange(session->on_deleted, {}), &told);
  queue_->Enqueue(session);
  for (const auto& tell : told) tell(why);
}

void SessionEndings::Lose(Session* session, const absl::Status& why) {
  if (!std::exchange(session->lost, true)) context_.stats->store_errors.Add();
  table_->Index(session);
  table_->CountUnread(session, false);
  session->phase = SessionPhase::kUnread;
  session->now.state.reset();
  SetStored(session, nullptr, "");
  // A record of the same generation is to be read, should it come back.
  session->stored_version = 0;
  expiry_->Set(session, absl::InfiniteDuration());
  if (session->writer != nullptr) session->writer->outdated = true;
  for (const auto& tell : TakeAll(session)) tell(why);
}

Waits SessionEndings::TakeAll(Session* session) {
  Waits all = TakeWaits(session);
  Append(std::exchange(session->marks, {}), &all);
  AppendChanges(session, &all);
  Append(std::exchange(session->on_deleted, {}), &all);
  Append(std::exchange(session->on_checked, {}), &all);
  Append(TakeWaiting(session), &all);
  return all;
}

}  // namespace sluice
