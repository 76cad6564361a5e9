#include "engine/sessions/session_owners.h"

#include <algorithm>

namespace sluice {
namespace {

// Between looks at a session that another daemon owns.
constexpr absl::Duration kFirstPause = absl::Milliseconds(2);
constexpr absl::Duration kLongestPause = absl::Milliseconds(100);
// Long enough for all who wait elsewhere to look once more.
constexpr absl::Duration kYieldPause = absl::Milliseconds(150);
// A call that does not want to wait gives another daemon this long to let go of a session after the
// end of its call ...
constexpr absl::Duration kLettingGo = absl::Milliseconds(100);
// ... and this long to write what that call committed.
constexpr absl::Duration kWriting = absl::Seconds(2);
// Interval at which other daemons' requests are looked for while a session is owned.
constexpr absl::Duration kRequestsPeriod = absl::Milliseconds(250);

absl::Status BusyElsewhere() {
  return absl::AbortedError("the session is busy: a call on another daemon writes to it");
}

absl::Status NotWrittenElsewhere() {
  return absl::UnavailableError("another daemon has a newer state of the session to write");
}

SessionWish WishOfUse(const SessionUse& use) {
  return use.on_conflict == OnConflict::kCancelRunning ? SessionWish::kCancel : SessionWish::kTurn;
}

}  // namespace

bool SessionOwners::IsIdle(const Session& session, bool with_change) {
  const bool writes = session.writer != nullptr && !(with_change && session.writer->committing);
  return !writes && (session.waiting.empty() || session.yields) && session.for_owner.empty() &&
         session.marks.empty() && session.changes.size() == (with_change ? 1u : 0u) &&
         session.phase == SessionPhase::kLive;
}

SessionWish SessionOwners::WishOf(const Session& session) {
  SessionWish wish = SessionWish::kNone;
  for (const auto& use : session.waiting) wish = std::max(wish, WishOfUse(*use));
  for (const SessionWait& wait : session.for_owner) wish = std::max(wish, wait.wish);
  return wish;
}

void SessionOwners::SetOwned(Session* session, bool owned) {
  session->owned = owned;
  session->asking = session->asking && !owned;
  if (owned) {
    if (owned_.empty()) next_requests_ = context_.clock->Now() + kRequestsPeriod;
    owned_.insert(session->key);
    session->look_pause = absl::ZeroDuration();
    SetLook(session, -absl::InfiniteDuration());
    return;
  }
  owned_.erase(session->key);
  if (std::exchange(session->yields, false)) {
    SetLook(session, context_.clock->Now() + kYieldPause);
  }
}

void SessionOwners::SetLook(Session* session, absl::Duration when) {
  looks_.erase({session->look_at, session->key});
  session->look_at = when;
  if (when != -absl::InfiniteDuration()) looks_.emplace(when, session->key);
}

void SessionOwners::LetGo(Session* session) {
  SetLook(session, -absl::InfiniteDuration());
  if (session->owned || session->asking) releases_.push_back(session->key);
  owned_.erase(session->key);
}

void SessionOwners::HeldElsewhere(Session* session, SessionHolder holder) {
  const absl::Duration now = context_.clock->Now();
  std::vector<std::function<void()>> told;
  const absl::Duration patience = holder == SessionHolder::kCall ? kLettingGo : kWriting;
  for (auto it = session->waiting.begin(); it != session->waiting.end();) {
    const std::shared_ptr<SessionUse> use = *it;
    if (use->on_conflict != OnConflict::kFail || now < use->since + patience) {
      ++it;
      continue;
    }
    it = session->waiting.erase(it);
    use->session = nullptr;
    context_.stats->conflicts.Add();
    told.push_back([use] { use->ready(BusyElsewhere()); });
  }
  const auto expire = [&](std::vector<SessionWait>* waits, absl::Status (*why)()) {
    for (size_t i = 0; i < waits->size();) {
      if (now < (*waits)[i].until) {
        ++i;
        continue;
      }
      told.push_back([then = std::move((*waits)[i].then), why] { then(why()); });
      waits->erase(waits->begin() + static_cast<int64_t>(i));
    }
  };
  expire(&session->for_owner, &BusyElsewhere);
  expire(&session->for_written, &NotWrittenElsewhere);
  const bool waits =
      !session->waiting.empty() || !session->for_owner.empty() || !session->for_written.empty();
  if (waits) {
    session->look_pause = std::clamp(2 * session->look_pause, kFirstPause, kLongestPause);
    SetLook(session, now + session->look_pause);
  }
  for (const auto& tell : told) tell();
}

std::unique_ptr<StoreJob> SessionOwners::ReleaseJob(Session* session) {
  session->asking = session->marked = false;
  SetOwned(session, false);
  return queue_->NewJob(StoreJob::Kind::kRelease, session);
}

void SessionOwners::WakeUntil(absl::Duration now) {
  while (!looks_.empty() && looks_.begin()->first <= now) {
    const SessionKey key = looks_.begin()->second;
    looks_.erase(looks_.begin());
    if (Session* session = table_->Find(key)) queue_->Enqueue(session);
  }
}

void SessionOwners::AddReleases(std::vector<std::unique_ptr<StoreJob>>* jobs) {
  for (const SessionKey& key : std::exchange(releases_, {})) {
    jobs->push_back(queue_->NewJob(StoreJob::Kind::kRelease));
    jobs->back()->record.tenant = key.first;
    jobs->back()->record.id = key.second;
  }
}

void SessionOwners::AddRequests(absl::Duration now, std::vector<std::unique_ptr<StoreJob>>* jobs) {
  if (requests_out_ || owned_.empty() || now < next_requests_) return;
  requests_out_ = true;
  jobs->push_back(queue_->NewJob(StoreJob::Kind::kRequests));
  for (const SessionKey& key : owned_) jobs->back()->names.push_back({key.first, key.second, 0});
}

std::vector<std::pair<SessionKey, SessionWish>> SessionOwners::RequestsDone(const StoreJob& job) {
  requests_out_ = false;
  next_requests_ = context_.clock->Now() + kRequestsPeriod;
  std::vector<std::pair<SessionKey, SessionWish>> wishes;
  if (!job.status.ok()) {
    context_.stats->store_errors.Add();
    return wishes;
  }
  for (size_t i = 0; i < job.names.size(); ++i) {
    Session* session = table_->Find({job.names[i].tenant, job.names[i].id});
    if (job.wishes[i] == SessionWish::kNone || session == nullptr || !session->owned) continue;
    session->yields = true;
    queue_->Enqueue(session);
    wishes.emplace_back(session->key, job.wishes[i]);
  }
  return wishes;
}

absl::Duration SessionOwners::NextDeadline() const {
  absl::Duration next = looks_.empty() ? absl::InfiniteDuration() : looks_.begin()->first;
  if (!owned_.empty() && !requests_out_) next = std::min(next, next_requests_);
  return next;
}

}  // namespace sluice
