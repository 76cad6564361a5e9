#include "engine/sessions/session.h"

#include <utility>

namespace sluice {

absl::Status LostRace() {
  return absl::AbortedError("another daemon has changed the session meanwhile");
}

bool IsLostRace(const absl::Status& status) { return status == LostRace(); }

SessionRecord RecordOf(const Session& session, const SessionContent& content, absl::Time now) {
  SessionRecord record;
  record.tenant = session.key.first;
  record.id = session.key.second;
  record.affinity = session.affinity;
  record.generation = session.generation;
  record.etag = content.etag;
  if (content.state != nullptr) {
    record.info = content.state->info;
    if (content.state == session.stored_state) record.state_id = session.stored_state_id;
  }
  record.fingerprint = session.fingerprint;
  record.last_request_id = content.last_request_id;
  record.create_time_us = absl::ToUnixMicros(session.create_time);
  record.update_time_us = absl::ToUnixMicros(content.update_time);
  record.last_use_us = absl::ToUnixMicros(now);
  record.ttl_us =
      content.ttl == absl::InfiniteDuration() ? -1 : absl::ToInt64Microseconds(content.ttl);
  record.labels = content.labels;
  return record;
}

void SetStored(Session* session, StatePtr state, const std::string& state_id) {
  session->stored_state_id = state_id;
  if (state == session->stored_state) return;
  if (session->stored_state != nullptr) session->stored_state->holders.erase(session->key);
  if (state != nullptr) state->holders.insert(session->key);
  session->stored_state = std::move(state);
}

Waits TakeWaits(Session* session) {
  Waits all = std::exchange(session->reading, {});
  for (auto& read : std::exchange(session->on_read, {})) all.push_back(std::move(read));
  for (SessionWait& wait : std::exchange(session->for_written, {})) {
    all.push_back(std::move(wait.then));
  }
  for (SessionWait& wait : std::exchange(session->for_owner, {})) {
    all.push_back(std::move(wait.then));
  }
  return all;
}

Waits TakeWaiting(Session* session) {
  Waits all;
  for (const auto& use : std::exchange(session->waiting, {})) {
    use->session = nullptr;
    all.push_back([use](absl::Status status) {
      if (!use->released) use->ready(std::move(status));
    });
  }
  return all;
}

}  // namespace sluice
