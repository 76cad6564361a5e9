// Knows which sessions of a directory that several daemons share are this daemon's (state/README.md
// has the protocol). Internal to engine/sessions.
//
// This daemon owns a session while a call here may write to it and while something that was
// acknowledged here is not on disk. It looks at a session that it does not own before each use. For
// one that another daemon owns it waits by looking again, ever more slowly, and asks that daemon
// meanwhile.
#ifndef SLUICE_ENGINE_SESSIONS_SESSION_OWNERS_H_
#define SLUICE_ENGINE_SESSIONS_SESSION_OWNERS_H_

#include <deque>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/sessions/session_queue.h"

namespace sluice {

class SessionOwners {
 public:
  // Both outlive the object.
  SessionOwners(const SessionContext& context, SessionTable* table, SessionQueue* queue)
      : context_(context), table_(table), queue_(queue) {}

  // True if the session in memory may not be the newest, because another daemon could have written
  // it.
  bool MustLook(const Session& session) const { return context_.setup->shared && !session.owned; }
  // A call that writes may have its turn.
  bool MayStart(const Session& session) const {
    return !context_.setup->shared || (session.owned && !session.yields);
  }
  // True if nothing here needs the session any more, except the first of its changes if
  // `with_change`.
  static bool IsIdle(const Session& session, bool with_change);
  // The wish that its owner is to be told.
  static SessionWish WishOf(const Session& session);

  void SetOwned(Session* session, bool owned);
  // The session is about to leave the table.
  void LetGo(Session* session);
  // A look has found that another daemon holds it: ends what does not want to wait any longer, and
  // sees to the next look.
  void HeldElsewhere(Session* session, SessionHolder holder);

  // The job that gives the session back.
  std::unique_ptr<StoreJob> ReleaseJob(Session* session);
  // Sessions whose next look is due want a job.
  void WakeUntil(absl::Duration now);
  // Jobs that give back what is gone.
  void AddReleases(std::vector<std::unique_ptr<StoreJob>>* jobs);
  // Now and then a job that asks what others wish of the sessions that this daemon owns.
  void AddRequests(absl::Duration now, std::vector<std::unique_ptr<StoreJob>>* jobs);
  // Owned sessions that others wish for. From now on they yield.
  std::vector<std::pair<SessionKey, SessionWish>> RequestsDone(const StoreJob& job);

  // Something is to be given back.
  bool outstanding() const { return !releases_.empty(); }
  size_t requests_out() const { return requests_out_ ? 1 : 0; }
  // When WakeUntil or AddRequests has something to do next.
  absl::Duration NextDeadline() const;

 private:
  // No look before `when`; -InfiniteDuration: at any time.
  void SetLook(Session* session, absl::Duration when);

  const SessionContext context_;
  SessionTable* const table_;
  SessionQueue* const queue_;
  std::set<SessionKey> owned_;
  std::deque<SessionKey> releases_;  // sessions that are gone, whose locks are still ours
  std::set<std::pair<absl::Duration, SessionKey>> looks_;  // sessions whose lock others had
  bool requests_out_ = false;
  absl::Duration next_requests_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSION_OWNERS_H_
