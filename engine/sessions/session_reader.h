// Asks the store about sessions: reads their records, for the first time or again, and checks
// whether their states can be read. Internal to engine/sessions.
#ifndef SLUICE_ENGINE_SESSIONS_SESSION_READER_H_
#define SLUICE_ENGINE_SESSIONS_SESSION_READER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/sessions/session_endings.h"

namespace sluice {

class SessionReader {
 public:
  using Found = std::function<void(absl::StatusOr<Session*>)>;

  // All outlive the object.
  SessionReader(const SessionContext& context, SessionTable* table, SessionQueue* queue,
                SessionExpiry* expiry, SessionOwners* owners, SessionEndings* endings)
      : context_(context),
        table_(table),
        queue_(queue),
        expiry_(expiry),
        owners_(owners),
        endings_(endings) {}

  // Called when a session turned out to be live, and this daemon's: calls that wait for it may go
  // on.
  void set_on_live(std::function<void(Session*)> on_live) { on_live_ = std::move(on_live); }

  // Calls `found` with a session that is there for the tenant, its newest record read: at once or
  // later.
  void Find(absl::string_view tenant, const std::string& id, Found found);
  // The same, with a session that this daemon owns; ABORTED when it does not within `patience`.
  void FindOwned(absl::string_view tenant, const std::string& id, SessionWish wish,
                 absl::Duration patience, Found found);
  // Calls `checked` once it is known whether the session's state can be read: a file that was read
  // through before is only looked at while it stays as it was.
  void CheckState(Session* session, std::function<void(absl::Status)> checked);

  // The session's record must be read before anything else is done to it.
  bool MustRead(const Session& session) const;
  // The job that the session wants first, or null: the check of its state that somebody awaits ...
  std::unique_ptr<StoreJob> CheckJob(Session* session);
  // ... and the read of its record, if somebody wants that.
  std::unique_ptr<StoreJob> ReadJob(Session* session);
  void ReadDone(Session* session, StoreJob* job);
  void CheckDone(Session* session, const StoreJob& job);

 private:
  std::unique_ptr<StoreJob> LookJob(Session* session);
  // Serves those who asked for what is newest, in a directory that is shared.
  void LookDone(const SessionKey& key, const StoreJob& job);
  absl::Status TakeRecord(Session* session, const SessionRecord& record, bool unchanged);

  const SessionContext context_;
  SessionTable* const table_;
  SessionQueue* const queue_;
  SessionExpiry* const expiry_;
  SessionOwners* const owners_;
  SessionEndings* const endings_;
  std::function<void(Session*)> on_live_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSION_READER_H_
