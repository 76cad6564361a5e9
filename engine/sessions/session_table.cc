#include "engine/sessions/session_table.h"

#include <sys/random.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/sessions/session_expiry.h"
#include "kernels/check.h"

namespace sluice {
namespace {

uint64_t SystemRandom() {
  uint64_t bits = 0;
  SLUICE_CHECK(getrandom(&bits, sizeof bits, 0) == sizeof bits);
  return bits;
}

}  // namespace

SessionTable::SessionTable(const SessionContext& context)
    : context_(context), random_(context.setup->random ? context.setup->random : SystemRandom) {}

SessionTable::~SessionTable() {
  for (auto& [key, session] : sessions_) SLUICE_CHECK(session->writer == nullptr);
}

Session* SessionTable::Find(const SessionKey& key) {
  const auto it = sessions_.find(key);
  return it == sessions_.end() ? nullptr : it->second.get();
}

Session* SessionTable::FindOrInsert(const SessionKey& key) {
  Session* session = Find(key);
  if (session != nullptr || !context_.setup->has_store) return session;
  return Insert(key, SessionPhase::kUnread, /*indexed=*/false);
}

Session* SessionTable::Insert(const SessionKey& key, SessionPhase phase, bool indexed) {
  auto owned = std::make_unique<Session>();
  Session* session = owned.get();
  session->key = key;
  session->phase = phase;
  session->created = context_.clock->Now();
  session->indexed = false;
  if (indexed) Index(session);
  SLUICE_CHECK(sessions_.emplace(key, std::move(owned)).second);
  return session;
}

std::unique_ptr<Session> SessionTable::Take(Session* session) {
  if (session->writer != nullptr) --busy_;
  if (session->indexed) {
    --total_;
    if (--per_tenant_[session->key.first] == 0) per_tenant_.erase(session->key.first);
  }
  CountUnread(session, false);
  SetStored(session, nullptr, "");
  const auto it = sessions_.find(session->key);
  std::unique_ptr<Session> gone = std::move(it->second);
  sessions_.erase(it);
  return gone;
}

void SessionTable::Index(Session* session) {
  if (std::exchange(session->indexed, true)) return;
  ++total_;
  ++per_tenant_[session->key.first];
}

void SessionTable::CountUnread(Session* session, bool unread) {
  if (std::exchange(session->counted_unread, unread) == unread) return;
  context_.states->AddUnread(unread ? 1 : -1);
}

void SessionTable::SetWriter(Session* session, std::shared_ptr<SessionUse> use) {
  busy_ += (use != nullptr ? 1 : 0) - (session->writer != nullptr ? 1 : 0);
  session->writer = std::move(use);
}

absl::Status SessionTable::CheckLimits(const std::string& tenant) const {
  const SessionLimits& limits = context_.setup->limits;
  if (total_ >= limits.max_sessions) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the daemon has all the sessions it may have: ", limits.max_sessions));
  }
  const auto it = per_tenant_.find(tenant);
  if (it != per_tenant_.end() && it->second >= limits.max_sessions_per_tenant) {
    return absl::ResourceExhaustedError(
        absl::StrCat("you have all the sessions you may have: ", limits.max_sessions_per_tenant));
  }
  return absl::OkStatus();
}

absl::Status SessionTable::CheckModel(const Session& session) const {
  if (session.fingerprint == context_.setup->fingerprint) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the session belongs to another model, of fingerprint ", session.fingerprint));
}

absl::Status SessionTable::CheckEtag(const Session& session, const std::string& etag) const {
  if (etag.empty() || etag == session.now.etag) return absl::OkStatus();
  context_.stats->conflicts.Add();
  return absl::AbortedError(
      absl::StrCat("the session has changed: its etag is ", session.now.etag, ", not ", etag));
}

absl::Status SessionTable::NotFound(const SessionKey& key) {
  return absl::NotFoundError(absl::StrCat("there is no session '", key.second, "'"));
}

SessionInfo SessionTable::Info(const Session& session) const {
  SessionInfo info;
  const StatePtr& state = session.now.state;
  info.id = session.key.second;
  info.affinity = session.affinity;
  info.fingerprint = session.fingerprint;
  info.etag = session.now.etag;
  if (state != nullptr) {
    info.position = state->info.position;
    info.numerics_id = state->info.numerics_id;
    info.note = state->info.note;
    info.tier = state->tier();
    info.state_bytes = context_.states->BytesAt(state->info.seen());
  }
  info.busy = session.writer != nullptr || session.busy_elsewhere;
  info.durable = session.generation > 0 && session.stored_version == session.version;
  info.last_request_id = session.now.last_request_id;
  info.create_time = session.create_time;
  info.update_time = session.now.update_time;
  if (session.now.ttl != absl::InfiniteDuration()) {
    info.expire_time =
        context_.clock->WallNow() + (SessionExpiry::Of(session) - context_.clock->Now());
  }
  info.labels = session.now.labels;
  return info;
}

std::string SessionTable::RandomId() {
  const uint64_t high = random_();
  const uint64_t low = random_();
  return absl::StrCat(absl::Hex(high, absl::kZeroPad16), absl::Hex(low, absl::kZeroPad16));
}

}  // namespace sluice
