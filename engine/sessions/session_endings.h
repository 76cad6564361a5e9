// Ends the waits for a session that goes, or that turns out to be another than was thought.
// Internal to engine/sessions.
#ifndef SLUICE_ENGINE_SESSIONS_SESSION_ENDINGS_H_
#define SLUICE_ENGINE_SESSIONS_SESSION_ENDINGS_H_

#include "absl/status/status.h"
#include "engine/sessions/session_expiry.h"
#include "engine/sessions/session_owners.h"

namespace sluice {

// Each may call whoever waited, who may do anything to Sessions: the caller looks the session up
// again if it needs it.
class SessionEndings {
 public:
  // All outlive the object.
  SessionEndings(const SessionContext& context, SessionTable* table, SessionQueue* queue,
                 SessionExpiry* expiry, SessionOwners* owners)
      : context_(context), table_(table), queue_(queue), expiry_(expiry), owners_(owners) {}

  // The session leaves the table; nothing points at it afterwards. OK: it was deleted, or there is
  // none, and whoever waited for something else than that is told so.
  void Remove(Session* session, const absl::Status& status);
  // Another daemon has written the session: the record is read again, and what was to be changed
  // here fails.
  void LoseRace(Session* session);
  // Forgets what is known of the session; calls that wait for the disk end with `why`.
  void Reread(Session* session, const absl::Status& why);
  // Its record or state turned out to be damaged. It stays in the index, to be listed and deleted;
  // each use looks at the disk again, where somebody may have mended it.
  void Lose(Session* session, const absl::Status& why);
  // Nobody will hear anything of it any more.
  static Waits TakeAll(Session* session);

 private:
  const SessionContext context_;
  SessionTable* const table_;
  SessionQueue* const queue_;
  SessionExpiry* const expiry_;
  SessionOwners* const owners_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSION_ENDINGS_H_
