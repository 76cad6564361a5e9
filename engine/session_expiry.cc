// When sessions end: a time to live after their last use, which the disk is told of now and then,
// so that it counts over restarts and for all daemons of the directory.

#include <algorithm>
#include <utility>

#include "engine/sessions.h"

namespace sluice {
namespace {

constexpr absl::Duration kExpiryPatience = absl::Seconds(10);
// The disk is told of a use no more often than so many times in a time to live.
constexpr int kTouches = 20;
// What versions wrote that did not keep last uses stays for this long after the first start of one
// that does.
constexpr absl::Duration kOldRecordsStay = absl::Hours(24);

}  // namespace

void Sessions::Touch(Session* session) {
  session->last_use = clock_->Now();
  SetExpiry(session, ExpiryOf(*session));
  if (!setup_.has_store || session->stored_version == 0) return;
  // Others, and this daemon after a restart, go by what the disk says.
  if (session->last_use - session->told_use < session->now.ttl / kTouches) return;
  if (!std::exchange(session->touched, true)) Enqueue(session);
}

absl::Duration Sessions::ExpiryOf(const Session& session) {
  return std::max(session.last_use + session.now.ttl, session.keep_until);
}

void Sessions::TakeLastUse(Session* session, const SessionRecord& record) {
  const absl::Time used = absl::FromUnixMicros(std::max(record.last_use_us, record.update_time_us));
  const absl::Duration age = ages_.AgeOf(used);
  // One that lies in the future counts from when it was first seen.
  if (used <= session->disk_use) return SetExpiry(session, ExpiryOf(*session));
  session->disk_use = used;
  const absl::Duration now = clock_->Now();
  const absl::Duration told = now - age;
  session->told_use = std::max(session->told_use, told);
  session->last_use = std::max(session->last_use, told);
  if (used < setup_.last_uses_since) {
    session->keep_until = now + (setup_.last_uses_since + kOldRecordsStay - clock_->WallNow());
  }
  SetExpiry(session, ExpiryOf(*session));
}

void Sessions::SetExpiry(Session* session, absl::Duration expiry) {
  if (session->expiry != absl::InfiniteDuration()) {
    expiries_.erase({session->expiry, session->key});
  }
  session->expiry = expiry;
  if (expiry != absl::InfiniteDuration()) expiries_.emplace(expiry, session->key);
}

bool Sessions::InUse(const Session& session) {
  return session.writer != nullptr || !session.waiting.empty() || !session.changes.empty() ||
         session.job_out || session.owned || session.version != session.stored_version;
}

void Sessions::Expire(absl::Duration now) {
  while (!expiries_.empty() && expiries_.begin()->first <= now) {
    Session* session = Lookup(expiries_.begin()->second);
    ages_.Look();
    const bool in_use = setup_.has_store ? InUse(*session) : session->writer != nullptr;
    const absl::Duration believed = ages_.distrusted() + session->now.ttl;
    if (in_use || !session->waiting.empty()) {
      Touch(session);
    } else if (believed > now) {
      SetExpiry(session, believed);
    } else if (!setup_.has_store) {
      ExpireIfOver(session);
    } else {
      // Somebody may have used it whom this daemon does not know of: the disk says so.
      SetExpiry(session, now + kExpiryPatience);
      const auto again = [this](absl::StatusOr<Session*> found) {
        if (found.ok()) ExpireIfOver(*found);
      };
      if (!MustLook(*session)) session->phase = SessionPhase::kUnread;
      FindOwned(session->key.first, session->key.second, SessionWish::kNone, kExpiryPatience,
                again);
    }
  }
}

void Sessions::ExpireIfOver(Session* session) {
  const absl::Duration now = clock_->Now();
  const bool over = std::max(ExpiryOf(*session), ages_.distrusted() + session->now.ttl) <= now;
  if (!over || session->writer != nullptr || !session->waiting.empty() ||
      !session->changes.empty()) {
    return;
  }
  stats_->sessions_expired.Add();
  StartDelete(session, [](absl::Status) {});
}

}  // namespace sluice
