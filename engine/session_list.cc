// Pages of a tenant's sessions.

#include <algorithm>
#include <utility>

#include "engine/sessions.h"

namespace sluice {
namespace {

bool Carries(const Sessions::Labels& all, const Sessions::Labels& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& label) {
    const auto it = all.find(label.first);
    return it != all.end() && it->second == label.second;
  });
}

}  // namespace

void Sessions::List(absl::string_view tenant, int32_t page_size, const std::string& after_id,
                    Labels labels, Done<SessionPage> done) {
  auto listing = std::make_shared<Listing>();
  listing->after = {std::string(tenant), after_id};
  listing->page_size = page_size;
  listing->labels = std::move(labels);
  listing->done = std::move(done);
  if (setup_.shared) {
    to_list_[listing->after.first].push_back(listing);  // what is there now
  } else {
    ContinueListing(listing);
  }
}

void Sessions::ContinueListing(const std::shared_ptr<Listing>& listing) {
  const auto ours = [&](const auto& it) {
    return it != sessions_.end() && it->first.first == listing->after.first;
  };
  // What must be read before it can be listed: once, whatever comes of it.
  const auto unknown = [&](const Session& session) {
    const bool unread = session.phase == SessionPhase::kUnread;
    const bool old = session.phase == SessionPhase::kLive && MustLook(session);
    return (unread || old) && listing->looked.count(session.key.second) == 0;
  };
  const auto unchecked = [&](const Session& session) {
    const StatePtr& state = session.now.state;
    return session.phase == SessionPhase::kLive && state != nullptr && !state->checked &&
           !state->fetching && state == session.stored_state &&
           listing->checked.count(session.key.second) == 0 &&
           listing->bytes_to_check >= states_->state_bytes();
  };
  auto it = sessions_.upper_bound(listing->after);
  const auto full = [&] {
    return static_cast<int32_t>(listing->page.sessions.size()) == listing->page_size;
  };
  for (; ours(it) && !full(); ++it) {
    const Session& session = *it->second;
    if (unknown(session) || unchecked(session)) break;
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
    listing->page.sessions.push_back(Info(session));
  }
  if (full() || !ours(it)) {
    if (ours(it)) listing->page.next_after = listing->after.second;
    return listing->done(std::move(listing->page));
  }
  // As many records at once as the page may still take; then on from here.
  const auto read = [this, listing](const std::string& id, const absl::Status& status) {
    if (IsLostRace(status)) listing->looked.erase(id);  // it is another one by now
    if (--listing->unread == 0) ContinueListing(listing);
  };
  const int32_t wanted = listing->page_size - static_cast<int32_t>(listing->page.sessions.size());
  std::vector<Session*> unread;
  for (; ours(it) && static_cast<int32_t>(unread.size()) < wanted; ++it) {
    if (unknown(*it->second) || unchecked(*it->second)) unread.push_back(it->second.get());
  }
  listing->unread = static_cast<int32_t>(unread.size());
  for (Session* session : unread) {
    const bool read_it = unknown(*session);
    (read_it ? listing->looked : listing->checked).insert(session->key.second);
    (read_it ? session->on_read : session->on_checked)
        .push_back(
            [read, id = session->key.second](const absl::Status& status) { read(id, status); });
    if (!read_it) listing->bytes_to_check -= states_->state_bytes();
    Enqueue(session);
  }
}

}  // namespace sluice
