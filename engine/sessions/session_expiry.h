// When sessions end: a time to live after their last use, which the disk is told of now and then,
// so that it counts over restarts and for all daemons of the directory. Internal to
// engine/sessions.
#ifndef SLUICE_ENGINE_SESSIONS_SESSION_EXPIRY_H_
#define SLUICE_ENGINE_SESSIONS_SESSION_EXPIRY_H_

#include <memory>
#include <set>
#include <utility>

#include "absl/time/time.h"
#include "engine/sessions/session_queue.h"
#include "engine/wall_age.h"

namespace sluice {

class SessionExpiry {
 public:
  // `queue` outlives the object: sessions wait there to have the disk told.
  SessionExpiry(const SessionContext& context, SessionQueue* queue);

  // The session is used now.
  void Touch(Session* session);
  // The disk says when the session was last used, by whichever daemon.
  void TakeLastUse(Session* session, const SessionRecord& record);
  // The job that tells the disk of the last use.
  std::unique_ptr<StoreJob> TouchJob(Session* session);
  // Called when the record on its way to the disk says that the session was last used at
  // `last_use_us`, which is now.
  void ToldNow(Session* session, int64_t last_use_us);

  // Looks at the session again then; InfiniteDuration: never.
  void Set(Session* session, absl::Duration when);
  // A session that is to be looked at by now, or null.
  const SessionKey* Due(absl::Duration now);
  // When the next one is.
  absl::Duration NextDeadline() const;

  // By what is known of the session's last use.
  static absl::Duration Of(const Session& session);
  // Not before this, should the time of day have been found wrong.
  absl::Duration Believed(const Session& session) const;
  bool IsOver(const Session& session) const;

 private:
  const SessionContext context_;
  SessionQueue* const queue_;
  WallAge ages_;
  std::set<std::pair<absl::Duration, SessionKey>> expiries_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSION_EXPIRY_H_
