// Brings the changes of sessions to the store. There is one write at a time for each session, of
// its content at that moment, so that commits that come faster than the disk leave out the ones
// between. Writes that fail are tried again, unless another daemon was ahead of them. Internal to
// engine/sessions.
#ifndef SLUICE_ENGINE_SESSIONS_SESSION_WRITER_H_
#define SLUICE_ENGINE_SESSIONS_SESSION_WRITER_H_

#include <memory>

#include "absl/status/status.h"
#include "engine/sessions/session_endings.h"

namespace sluice {

class SessionWriter {
 public:
  // All outlive the object.
  SessionWriter(const SessionContext& context, SessionTable* table, SessionQueue* queue,
                SessionExpiry* expiry, SessionOwners* owners, SessionEndings* endings)
      : context_(context),
        table_(table),
        queue_(queue),
        expiry_(expiry),
        owners_(owners),
        endings_(endings) {}

  // Done once it is on disk; without a store at once.
  void Change(Session* session, PendingChange change);

  // The job of the store that the session, whose record needs no read, wants, or null. Changes
  // whose etag is no longer the session's end here.
  std::unique_ptr<StoreJob> MakeJob(Session* session);
  void PutDone(Session* session, StoreJob* job);
  void DeleteDone(Session* session, StoreJob* job);
  // The other daemons can see now that something of the session is not written yet, or not.
  void MarkDone(Session* session, const absl::Status& status);

 private:
  std::unique_ptr<StoreJob> PutJob(Session* session);
  void SetSource(Session* source, const StatePtr& state, Session* session, StoreJob* job);
  // True if the session's file may go away: nobody else needs it, or all that do can do without it.
  bool MayDropFile(Session* session);
  // The session names a state that will never arrive: ends what waits for it. Returns the job that
  // can go on then.
  std::unique_ptr<StoreJob> FailPut(Session* session);
  void PutRefused(Session* session, const StoreJob& job);
  void Retry(Session* session);

  const SessionContext context_;
  SessionTable* const table_;
  SessionQueue* const queue_;
  SessionExpiry* const expiry_;
  SessionOwners* const owners_;
  SessionEndings* const endings_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSION_WRITER_H_
