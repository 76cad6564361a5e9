#include "engine/sessions/session_pages.h"

#include <algorithm>
#include <utility>

namespace sluice {
namespace {

// Interval at which the whole directory is listed at most; listing takes no more than a hundredth
// of the time.
constexpr absl::Duration kListPeriod = absl::Seconds(2);
constexpr int kListShare = 100;

bool Carries(const SessionLabels& all, const SessionLabels& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& label) {
    const auto it = all.find(label.first);
    return it != all.end() && it->second == label.second;
  });
}

}  // namespace

void SessionPages::List(absl::string_view tenant, int32_t page_size, const std::string& after_id,
                        SessionLabels labels, Done<SessionPage> done) {
  auto listing = std::make_shared<Listing>();
  listing->after = {std::string(tenant), after_id};
  listing->page_size = page_size;
  listing->labels = std::move(labels);
  listing->done = std::move(done);
  if (context_.setup->shared) {
    to_list_[listing->after.first].push_back(listing);  // what is there now
  } else {
    Continue(listing);
  }
}

bool SessionPages::IsUnknown(const Listing& listing, const Session& session) const {
  const bool unread = session.phase == SessionPhase::kUnread;
  const bool old = session.phase == SessionPhase::kLive && owners_->MustLook(session);
  return (unread || old) && listing.looked.count(session.key.second) == 0;
}

bool SessionPages::IsUnchecked(const Listing& listing, const Session& session) const {
  const StatePtr& state = session.now.state;
  return session.phase == SessionPhase::kLive && state != nullptr && !state->checked &&
         !state->fetching && state == session.stored_state &&
         listing.checked.count(session.key.second) == 0 &&
         listing.bytes_to_check >= context_.states->BytesAt(state->info.seen());
}

void SessionPages::Continue(const std::shared_ptr<Listing>& listing) {
  const SessionTable::Map& all = table_->all();
  const auto ours = [&](const auto& it) {
    return it != all.end() && it->first.first == listing->after.first;
  };
  const auto full = [&] {
    return static_cast<int32_t>(listing->page.sessions.size()) == listing->page_size;
  };
  auto it = all.upper_bound(listing->after);
  for (; ours(it) && !full(); ++it) {
    const Session& session = *it->second;
    if (IsUnknown(*listing, session) || IsUnchecked(*listing, session)) break;
    listing->after = it->first;
    if (session.phase == SessionPhase::kUnread && session.indexed && listing->labels.empty()) {
      SessionInfo info;
      info.id = session.key.second;
      info.unreadable = true;
      listing->page.sessions.push_back(std::move(info));
    }
    if (session.phase != SessionPhase::kLive || !Carries(session.now.labels, listing->labels)) {
      continue;
    }
    listing->page.sessions.push_back(table_->Info(session));
  }
  if (full() || !ours(it)) {
    if (ours(it)) listing->page.next_after = listing->after.second;
    return listing->done(std::move(listing->page));
  }
  Read(listing, it);
}

void SessionPages::Read(const std::shared_ptr<Listing>& listing,
                        SessionTable::Map::const_iterator it) {
  // Then on from here.
  const auto read = [this, listing](const std::string& id, const absl::Status& status) {
    if (IsLostRace(status)) listing->looked.erase(id);  // it is another one by now
    if (--listing->unread == 0) Continue(listing);
  };
  const size_t wanted = listing->page_size - listing->page.sessions.size();
  std::vector<Session*> unread;
  for (; it != table_->all().end() && it->first.first == listing->after.first; ++it) {
    if (unread.size() == wanted) break;
    Session* session = it->second.get();
    if (IsUnknown(*listing, *session) || IsUnchecked(*listing, *session)) unread.push_back(session);
  }
  listing->unread = static_cast<int32_t>(unread.size());
  for (Session* session : unread) {
    const bool read_it = IsUnknown(*listing, *session);
    (read_it ? listing->looked : listing->checked).insert(session->key.second);
    (read_it ? session->on_read : session->on_checked)
        .push_back(
            [read, id = session->key.second](const absl::Status& status) { read(id, status); });
    if (!read_it) {
      listing->bytes_to_check -= context_.states->BytesAt(session->now.state->info.seen());
    }
    queue_->Enqueue(session);
  }
}

// ---- With a directory that is shared ----

void SessionPages::AddLists(std::vector<std::unique_ptr<StoreJob>>* jobs) {
  for (auto& [tenant, listings] : std::exchange(to_list_, {})) {
    jobs->push_back(queue_->NewJob(StoreJob::Kind::kList));
    jobs->back()->record.tenant = tenant;
    listing_[jobs->back()->id] = std::move(listings);
  }
}

void SessionPages::AddListOfAll(absl::Duration now, std::vector<std::unique_ptr<StoreJob>>* jobs) {
  if (list_job_ != 0 || now < next_list_) return;
  jobs->push_back(queue_->NewJob(StoreJob::Kind::kList));
  jobs->back()->all = true;
  list_job_ = jobs->back()->id;
  list_began_ = now;
}

void SessionPages::ListDone(const StoreJob& job) {
  const absl::Duration now = context_.clock->Now();
  if (!job.status.ok()) context_.stats->store_errors.Add();
  if (job.all) {
    list_job_ = 0;
    next_list_ = now + std::max(kListPeriod, kListShare * (now - list_began_));
    if (!job.status.ok()) return;
    TakeNames(job.names, nullptr);
    return context_.states->CountDirectory(job.states);
  }
  const auto it = listing_.find(job.id);
  const Listings listings = std::move(it->second);
  listing_.erase(it);
  if (job.status.ok()) TakeNames(job.names, &job.record.tenant);
  for (const auto& listing : listings) Continue(listing);
}

void SessionPages::TakeNames(const std::vector<SessionName>& names, const std::string* tenant) {
  std::set<SessionKey> there;
  for (const SessionName& name : names) {
    SessionKey key(name.tenant, name.id);
    if (table_->Find(key) == nullptr) {
      queue_->EnqueueIdle(table_->Insert(key, SessionPhase::kUnread, /*indexed=*/true));
    }
    there.insert(std::move(key));
  }
  std::vector<Session*> gone;
  const SessionTable::Map& all = table_->all();
  auto it = tenant == nullptr ? all.begin() : all.lower_bound({*tenant, ""});
  for (; it != all.end() && (tenant == nullptr || it->first.first == *tenant); ++it) {
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
  for (Session* session : gone) endings_->Remove(session, absl::OkStatus());
}

absl::Duration SessionPages::NextDeadline() const {
  return list_job_ == 0 ? next_list_ : absl::InfiniteDuration();
}

Waits SessionPages::TakeWaits() {
  Waits all;
  const auto take = [&](const Listings& listings) {
    for (const auto& listing : listings) all.push_back(listing->done);
  };
  for (const auto& [tenant, listings] : std::exchange(to_list_, {})) take(listings);
  for (const auto& [job, listings] : std::exchange(listing_, {})) take(listings);
  return all;
}

}  // namespace sluice
