#include "engine/sessions/session_expiry.h"

#include <algorithm>

namespace sluice {
namespace {

// The disk is told of a use no more often than so many times in a time to live.
constexpr int kTouches = 20;
// Records of versions that kept no last uses stay for this long after the first start of a version
// that does.
constexpr absl::Duration kOldRecordsStay = absl::Hours(24);

}  // namespace

SessionExpiry::SessionExpiry(const SessionContext& context, SessionQueue* queue)
    : context_(context), queue_(queue), ages_(context.clock, context.setup->on_wrong_clock) {}

void SessionExpiry::Touch(Session* session) {
  session->last_use = context_.clock->Now();
  Set(session, Of(*session));
  if (!context_.setup->has_store || session->stored_version == 0) return;
  // Others, and this daemon after a restart, go by what the disk says.
  if (session->last_use - session->told_use < session->now.ttl / kTouches) return;
  if (!std::exchange(session->touched, true)) queue_->Enqueue(session);
}

void SessionExpiry::TakeLastUse(Session* session, const SessionRecord& record) {
  const absl::Time used = absl::FromUnixMicros(std::max(record.last_use_us, record.update_time_us));
  const absl::Duration age = ages_.AgeOf(used);
  // One that lies in the future counts from when it was first seen.
  if (used <= session->disk_use) return Set(session, Of(*session));
  session->disk_use = used;
  const absl::Duration now = context_.clock->Now();
  const absl::Duration told = now - age;
  session->told_use = std::max(session->told_use, told);
  session->last_use = std::max(session->last_use, told);
  const absl::Time since = context_.setup->last_uses_since;
  if (used < since) {
    session->keep_until = now + (since + kOldRecordsStay - context_.clock->WallNow());
  }
  Set(session, Of(*session));
}

std::unique_ptr<StoreJob> SessionExpiry::TouchJob(Session* session) {
  auto job = queue_->NewJob(StoreJob::Kind::kTouch, session);
  job->record.last_use_us =
      absl::ToUnixMicros(context_.clock->WallNow() - (context_.clock->Now() - session->last_use));
  session->touched = false;
  session->told_use = session->last_use;
  session->disk_use = absl::FromUnixMicros(job->record.last_use_us);
  return job;
}

void SessionExpiry::ToldNow(Session* session, int64_t last_use_us) {
  session->touched = false;
  session->told_use = context_.clock->Now();
  session->disk_use = absl::FromUnixMicros(last_use_us);
}

void SessionExpiry::Set(Session* session, absl::Duration when) {
  if (session->expiry != absl::InfiniteDuration()) {
    expiries_.erase({session->expiry, session->key});
  }
  session->expiry = when;
  if (when != absl::InfiniteDuration()) expiries_.emplace(when, session->key);
}

const SessionKey* SessionExpiry::Due(absl::Duration now) {
  if (expiries_.empty() || expiries_.begin()->first > now) return nullptr;
  ages_.Look();
  return &expiries_.begin()->second;
}

absl::Duration SessionExpiry::NextDeadline() const {
  return expiries_.empty() ? absl::InfiniteDuration() : expiries_.begin()->first;
}

absl::Duration SessionExpiry::Of(const Session& session) {
  return std::max(session.last_use + session.now.ttl, session.keep_until);
}

absl::Duration SessionExpiry::Believed(const Session& session) const {
  return ages_.distrusted() + session.now.ttl;
}

bool SessionExpiry::IsOver(const Session& session) const {
  return std::max(Of(session), Believed(session)) <= context_.clock->Now();
}

}  // namespace sluice
