// A call's dealings with its session: it waits for its turn, reads the state, commits, and lets go.
// One call at a time writes to a session, and has room for its commit from its turn on. Internal to
// engine/sessions.
#ifndef SLUICE_ENGINE_SESSIONS_SESSION_TURNS_H_
#define SLUICE_ENGINE_SESSIONS_SESSION_TURNS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/sessions/session_reader.h"
#include "engine/sessions/session_writer.h"
#include "engine/sessions/state_fetcher.h"

namespace sluice {

class SessionTurns {
 public:
  // Ends a call of the engine's.
  using CancelCall = std::function<void(uint64_t call, absl::Status)>;

  // All outlive the object.
  SessionTurns(const SessionContext& context, SessionTable* table, SessionQueue* queue,
               SessionExpiry* expiry, SessionOwners* owners, SessionReader* reader,
               StateFetcher* fetcher, SessionWriter* writer)
      : context_(context),
        table_(table),
        queue_(queue),
        expiry_(expiry),
        owners_(owners),
        reader_(reader),
        fetcher_(fetcher),
        writer_(writer) {}

  void set_cancel_call(CancelCall cancel) { cancel_call_ = std::move(cancel); }

  // These are Sessions' (sessions.h).
  void Acquire(absl::string_view tenant, const std::string& id, std::shared_ptr<SessionUse> use);
  void Release(const std::shared_ptr<SessionUse>& use);
  void Commit(const std::shared_ptr<SessionUse>& use, StateInfo info, int32_t slot, HostState data,
              const std::string& request_id, bool durable, Done<SessionInfo> done);

  // Calls that wait have their turns, if it is time for them.
  void StartNext(Session* session);
  // Cancels the call that writes to the session, unless what it commits is on its way to the disk.
  // False: there is none, or it is.
  bool CancelWriter(const Session& session, const std::string& why);
  // Somebody wants to keep the session's state, whatever the call that writes to it commits.
  // RESOURCE_EXHAUSTED when there is no room for both.
  absl::Status KeepState(Session* session);

 private:
  void TakeTurn(Session* session, const std::shared_ptr<SessionUse>& use);
  void Start(Session* session, const std::shared_ptr<SessionUse>& use);
  absl::Status ReserveFor(const Session& session, SessionUse* use);
  // True if the session's state goes with the next commit: it is nobody else's, and it could be
  // read again should the commit fail.
  bool MayReplace(const Session& session) const;
  // The place of the use's state is the committed one's now.
  void LeavePlace(SessionUse* use);
  // Says what SessionTable::Info will once the call is over.
  SessionInfo Committed(const Session& session) const;

  const SessionContext context_;
  SessionTable* const table_;
  SessionQueue* const queue_;
  SessionExpiry* const expiry_;
  SessionOwners* const owners_;
  SessionReader* const reader_;
  StateFetcher* const fetcher_;
  SessionWriter* const writer_;
  CancelCall cancel_call_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSION_TURNS_H_
