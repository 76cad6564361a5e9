// The sessions that a daemon knows, by tenant and id, and how many there may be. Internal to
// engine/sessions.
#ifndef SLUICE_ENGINE_SESSIONS_SESSION_TABLE_H_
#define SLUICE_ENGINE_SESSIONS_SESSION_TABLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "engine/session_info.h"
#include "engine/sessions/session.h"
#include "engine/sessions/session_setup.h"

namespace sluice {

class SessionTable {
 public:
  using Map = std::map<SessionKey, std::unique_ptr<Session>>;

  explicit SessionTable(const SessionContext& context);
  ~SessionTable();

  // Null: it is not in memory.
  Session* Find(const SessionKey& key);
  // The same; without it, one that is to be looked for in the store, since another daemon may have
  // made it. Null: there is no store.
  Session* FindOrInsert(const SessionKey& key);
  // There must be none of this name.
  Session* Insert(const SessionKey& key, SessionPhase phase, bool indexed);
  // The session is nowhere any more; whoever still points at it is the caller's to tell.
  std::unique_ptr<Session> Take(Session* session);
  const Map& all() const { return sessions_; }

  // There is such a session: it counts from now on.
  void Index(Session* session);
  // Starts or stops counting a state on disk for the session that nobody has read about yet.
  void CountUnread(Session* session, bool unread);
  // Null: nobody writes to it any more.
  void SetWriter(Session* session, std::shared_ptr<SessionUse> use);

  // RESOURCE_EXHAUSTED: the daemon or the tenant has all the sessions it may have.
  absl::Status CheckLimits(const std::string& tenant) const;
  // FAILED_PRECONDITION: another model's.
  absl::Status CheckModel(const Session& session) const;
  // ABORTED, and a conflict is counted. "": any.
  absl::Status CheckEtag(const Session& session, const std::string& etag) const;
  static absl::Status NotFound(const SessionKey& key);

  SessionInfo Info(const Session& session) const;
  // 128 bits.
  std::string RandomId();
  int64_t total() const { return total_; }  // indexed ones
  int64_t busy() const { return busy_; }    // those that a call writes to

 private:
  const SessionContext context_;
  const std::function<uint64_t()> random_;
  Map sessions_;
  absl::flat_hash_map<std::string, int64_t> per_tenant_;  // indexed ones
  int64_t total_ = 0;
  int64_t busy_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSION_TABLE_H_
