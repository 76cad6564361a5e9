// Knows which sessions want a job of the store, at once or later, and which have one: one at most
// for each. Internal to engine/sessions.
#ifndef SLUICE_ENGINE_SESSIONS_SESSION_QUEUE_H_
#define SLUICE_ENGINE_SESSIONS_SESSION_QUEUE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/sessions/session_table.h"
#include "engine/store_job.h"

namespace sluice {

class SessionQueue {
 public:
  explicit SessionQueue(SessionTable* table) : table_(table) {}

  // The session wants a job. Does nothing when it stands here already.
  void Enqueue(Session* session);
  // The same, not before `when`; until then it is `backing_off`.
  void EnqueueAt(Session* session, absl::Duration when);
  // Its record is to be read when there is nothing better to do.
  void EnqueueIdle(Session* session) { idle_.push_back(session->key); }

  // Sessions whose time has come want a job at once.
  void WakeUntil(absl::Duration now);
  // From now on nothing is read without need.
  void DropIdle() { idle_.clear(); }
  // Takes the sessions that want a job now, in order. Some may be gone.
  std::deque<SessionKey> Take() { return std::exchange(queue_, {}); }
  // The read of a record that nobody asked for, or null. One at a time.
  std::unique_ptr<StoreJob> IdleJob();

  // A job of the session's, which has none.
  std::unique_ptr<StoreJob> NewJob(StoreJob::Kind kind, Session* session);
  // A job that concerns no session in memory.
  std::unique_ptr<StoreJob> NewJob(StoreJob::Kind kind);
  // The job needs the session's file too.
  void Lend(Session* session, const StoreJob& job);
  // The job is back: the sessions that it held, its own first, are free again.
  std::vector<SessionKey> Return(const StoreJob& job);

  bool empty() const { return queue_.empty(); }
  // Jobs that are out, and those of them that only read what nobody asked for.
  size_t out() const { return out_.size(); }
  size_t idle_out() const { return idle_job_ != 0 ? 1 : 0; }
  // When WakeUntil has something to do next.
  absl::Duration NextDeadline() const;

 private:
  SessionTable* const table_;
  std::deque<SessionKey> queue_;
  std::deque<SessionKey> idle_;
  std::set<std::pair<absl::Duration, SessionKey>> later_;
  std::map<uint64_t, std::vector<SessionKey>> out_;  // by job
  uint64_t last_job_ = 0;
  uint64_t idle_job_ = 0;  // 0: none is out
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSION_QUEUE_H_
