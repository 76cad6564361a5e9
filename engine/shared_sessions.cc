// Sessions of a directory that several daemons share: who owns one, and what the others have
// written (state/README.md has the protocol).
//
// This daemon owns a session while a call here may write to it and while something that was
// acknowledged here is not on disk. It looks at a session that it does not own before each use. For
// one that another daemon owns it waits by looking again, ever more slowly, and asks that daemon
// meanwhile.

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/sessions.h"
#include "kernels/check.h"

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
// ... and this long to write what that call committed; so does whoever asks for the newest state.
constexpr absl::Duration kWriting = absl::Seconds(2);
// How often other daemons' requests are looked for while a session is owned.
constexpr absl::Duration kRequestsPeriod = absl::Milliseconds(250);
// How often the whole directory is listed: no more often than this, and for no more than a
// hundredth of the time.
constexpr absl::Duration kListPeriod = absl::Seconds(2);
constexpr int kListShare = 100;

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

void Sessions::FindOwned(absl::string_view tenant, const std::string& id, SessionWish wish,
                         absl::Duration patience, Found found) {
  const SessionKey key(std::string(tenant), id);
  Session* session = setup_.shared ? LookupOrInsert(key) : nullptr;
  const bool must_wait =
      session != nullptr && !session->owned &&
      (session->phase == SessionPhase::kLive || session->phase == SessionPhase::kUnread);
  if (!must_wait) return Find(tenant, id, std::move(found));
  session->for_owner.push_back(
      {wish, clock_->Now() + patience, [this, key, found = std::move(found)](absl::Status status) {
         if (!status.ok()) return found(status);
         Session* owned = Lookup(key);
         if (owned == nullptr || owned->phase != SessionPhase::kLive) return found(NotFound(key));
         found(owned);
       }});
  Enqueue(session);
}

void Sessions::SetOwned(Session* session, bool owned) {
  session->owned = owned;
  session->asking = session->asking && !owned;
  if (owned) {
    if (owned_.empty()) next_requests_ = clock_->Now() + kRequestsPeriod;
    owned_.insert(session->key);
    session->look_pause = absl::ZeroDuration();
    SetLook(session, -absl::InfiniteDuration());
    return;
  }
  owned_.erase(session->key);
  if (std::exchange(session->yields, false)) SetLook(session, clock_->Now() + kYieldPause);
}

void Sessions::SetLook(Session* session, absl::Duration when) {
  looks_.erase({session->look_at, session->key});
  session->look_at = when;
  if (when != -absl::InfiniteDuration()) looks_.emplace(when, session->key);
}

SessionWish Sessions::WishOf(const Session& session) const {
  SessionWish wish = SessionWish::kNone;
  for (const auto& use : session.waiting) wish = std::max(wish, WishOfUse(*use));
  for (const SessionWait& wait : session.for_owner) wish = std::max(wish, wait.wish);
  return wish;
}

bool Sessions::IsIdle(const Session& session, bool with_change) const {
  const bool writes = session.writer != nullptr && !(with_change && session.writer->committing);
  return !writes && (session.waiting.empty() || session.yields) && session.for_owner.empty() &&
         session.marks.empty() && session.changes.size() == (with_change ? 1u : 0u) &&
         session.phase == SessionPhase::kLive;
}

// ---- Looks ----

std::unique_ptr<StoreJob> Sessions::LookJob(Session* session) {
  const bool claims = !session->waiting.empty() || !session->for_owner.empty();
  if (session->asking && !claims) return ReleaseJob(session);
  if (session->phase == SessionPhase::kUnread && !session->indexed && !claims &&
      session->on_read.empty() && session->for_written.empty()) {
    return Remove(session, absl::OkStatus()), nullptr;  // whoever asked for it has left
  }
  const bool due = clock_->Now() >= session->look_at;
  const bool again = due && (claims || !session->for_written.empty());
  if (session->on_read.empty() && !again) {  // a timer comes back to it, if any
    const bool touch = session->touched && session->phase == SessionPhase::kLive;
    return touch ? TouchJob(session) : nullptr;
  }
  auto job = NewJob(StoreJob::Kind::kReadRecord, session);
  if (claims && due) {
    job->own = true;
    job->wish = WishOf(*session);
    session->asking = job->wish != SessionWish::kNone;
  }
  session->reading = std::exchange(session->on_read, {});
  return job;
}

std::unique_ptr<StoreJob> Sessions::ReleaseJob(Session* session) {
  session->asking = session->marked = false;
  SetOwned(session, false);
  return NewJob(StoreJob::Kind::kRelease, session);
}

std::vector<std::function<void(absl::Status)>> Sessions::TakeWaits(Session* session) {
  auto all = std::exchange(session->reading, {});
  for (auto& read : std::exchange(session->on_read, {})) all.push_back(std::move(read));
  for (SessionWait& wait : std::exchange(session->for_written, {})) {
    all.push_back(std::move(wait.then));
  }
  for (SessionWait& wait : std::exchange(session->for_owner, {})) {
    all.push_back(std::move(wait.then));
  }
  return all;
}

void Sessions::LookDone(const SessionKey& key, const StoreJob& job) {
  Session* session = Lookup(key);
  session->busy_elsewhere = job.holder == SessionHolder::kCall;
  std::vector<std::function<void(absl::Status)>> served;
  if (job.owned) {
    served = TakeWaits(session);  // nothing is newer, whenever they came
  } else if (job.holder == SessionHolder::kUnwritten) {
    const absl::Duration until = clock_->Now() + kWriting;
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
  session = Lookup(key);
  if (session == nullptr) return;
  if (job.owned) return StartNext(session);
  HeldElsewhere(session, job.holder);
}

// Ends what does not want to wait any longer, and sees to the next look.
void Sessions::HeldElsewhere(Session* session, SessionHolder holder) {
  const absl::Duration now = clock_->Now();
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
    stats_->conflicts.Add();
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

void Sessions::MarkDone(Session* session, const absl::Status& status) {
  if (!status.ok()) stats_->store_errors.Add();
  session->marked = session->marked || status.ok();
  for (const auto& mark : std::exchange(session->marks, {})) mark(status);
}

// ---- What concerns more than one session ----

void Sessions::AddSharedJobs(absl::Duration now, std::vector<std::unique_ptr<StoreJob>>* jobs) {
  while (!looks_.empty() && looks_.begin()->first <= now) {
    const SessionKey key = looks_.begin()->second;
    looks_.erase(looks_.begin());
    if (Session* session = Lookup(key)) Enqueue(session);
  }
  const auto add = [&](StoreJob::Kind kind) {
    auto job = std::make_unique<StoreJob>();
    job->kind = kind;
    job->id = ++last_job_;
    out_[job->id];
    jobs->push_back(std::move(job));
    return jobs->back().get();
  };
  for (const SessionKey& key : std::exchange(releases_, {})) {
    StoreJob* job = add(StoreJob::Kind::kRelease);
    job->record.tenant = key.first;
    job->record.id = key.second;
  }
  for (auto& [tenant, listings] : std::exchange(to_list_, {})) {
    StoreJob* job = add(StoreJob::Kind::kList);
    job->record.tenant = tenant;
    listing_[job->id] = std::move(listings);
  }
  if (stopping_) return;
  if (requests_job_ == 0 && !owned_.empty() && now >= next_requests_) {
    StoreJob* job = add(StoreJob::Kind::kRequests);
    requests_job_ = job->id;
    for (const SessionKey& key : owned_) job->names.push_back({key.first, key.second, 0});
  }
  if (list_job_ == 0 && now >= next_list_) {
    StoreJob* job = add(StoreJob::Kind::kList);
    job->all = true;
    list_job_ = job->id;
    list_began_ = now;
  }
}

void Sessions::RequestsDone(const StoreJob& job) {
  requests_job_ = 0;
  next_requests_ = clock_->Now() + kRequestsPeriod;
  if (!job.status.ok()) return stats_->store_errors.Add();
  for (size_t i = 0; i < job.names.size(); ++i) {
    const SessionWish wish = job.wishes[i];
    Session* session = Lookup({job.names[i].tenant, job.names[i].id});
    if (wish == SessionWish::kNone || session == nullptr || !session->owned) continue;
    session->yields = true;
    Enqueue(session);
    if (wish == SessionWish::kTurn || session->writer == nullptr || session->writer->committing) {
      continue;
    }
    stats_->conflicts.Add();
    cancel_call_(session->writer->call,
                 absl::CancelledError(wish == SessionWish::kDelete
                                          ? "the session was deleted"
                                          : "another call has taken over the session"));
  }
}

void Sessions::ListDone(const StoreJob& job) {
  const absl::Duration now = clock_->Now();
  if (!job.status.ok()) stats_->store_errors.Add();
  if (job.all) {
    list_job_ = 0;
    next_list_ = now + std::max(kListPeriod, kListShare * (now - list_began_));
    if (!job.status.ok()) return;
    TakeNames(job.names, nullptr);
    return states_->CountDirectory(job.states);
  }
  const auto it = listing_.find(job.id);
  const std::vector<std::shared_ptr<Listing>> listings = std::move(it->second);
  listing_.erase(it);
  if (job.status.ok()) TakeNames(job.names, &job.record.tenant);
  for (const auto& listing : listings) ContinueListing(listing);
}

// These are the sessions there are: of one tenant, or all.
void Sessions::TakeNames(const std::vector<SessionName>& names, const std::string* tenant) {
  std::set<SessionKey> there;
  for (const SessionName& name : names) {
    SessionKey key(name.tenant, name.id);
    Session* session = Lookup(key);
    if (session == nullptr) {
      session = Insert(key, /*indexed=*/true);
      session->phase = SessionPhase::kUnread;
      unread_.push_back(key);
    }
    there.insert(std::move(key));
  }
  std::vector<Session*> gone;
  auto it = tenant == nullptr ? sessions_.begin() : sessions_.lower_bound({*tenant, ""});
  for (; it != sessions_.end() && (tenant == nullptr || it->first.first == *tenant); ++it) {
    Session* session = it->second.get();
    const bool idle = session->writer == nullptr && session->waiting.empty() &&
                      session->changes.empty() && session->on_read.empty() &&
                      session->for_owner.empty() && session->for_written.empty();
    const bool stored = session->phase == SessionPhase::kLive ||
                        (session->phase == SessionPhase::kUnread && session->indexed);
    if (stored && idle && !session->owned && !session->job_out && there.count(it->first) == 0) {
      gone.push_back(session);
    }
  }
  for (Session* session : gone) Remove(session, absl::OkStatus());
}

}  // namespace sluice
