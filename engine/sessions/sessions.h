// The sessions of one engine: what SessionService offers, and what calls need of a session.
//
// Lives on the thread that drives the engine. It does no file access itself: it queues StoreJobs,
// which a driver takes, runs elsewhere and gives back. Its parts, the lower ones first:
//
//   SessionTable     names and limits          SessionReader  records and states' files, read
//   SessionQueue     who wants a job           SessionWriter  what changes, written
//   SessionExpiry    times to live             StateFetcher   states, back to host memory
//   SessionOwners    which daemon's they are   SessionTurns   calls that write, and their room
//   SessionEndings   who is told when one goes SessionPages   lists
#ifndef SLUICE_ENGINE_SESSIONS_SESSIONS_H_
#define SLUICE_ENGINE_SESSIONS_SESSIONS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/session_info.h"
#include "engine/sessions/session_pages.h"
#include "engine/sessions/session_setup.h"
#include "engine/sessions/session_turns.h"

namespace sluice {

struct SessionSettings {
  std::string id = "";                        // "": 128 random bits
  std::string affinity = "";                  // "": the id; a fork's: its parent's
  absl::Duration ttl = absl::ZeroDuration();  // since the last use; zero: the default
  std::map<std::string, std::string> labels = {};
};

struct SessionChange {
  std::optional<std::map<std::string, std::string>> labels;
  std::optional<absl::Duration> ttl;
};

struct ExportedState {
  SessionInfo session;
  StateInfo info;
  std::shared_ptr<const StateData> data;  // null at position 0
};

class Sessions {
 public:
  using Labels = SessionLabels;

  // All outlive the object.
  Sessions(StateCache* states, const Clock* clock, EngineStats* stats, SessionsSetup setup);
  ~Sessions();

  // A session of another tenant is NOT_FOUND, as one that does not exist. An `etag` that is neither
  // empty nor current is ABORTED. A state or record that cannot be read is DATA_LOSS.

  // ALREADY_EXISTS; RESOURCE_EXHAUSTED at a limit, or when the disk is full.
  void Create(absl::string_view tenant, SessionSettings settings, Done<SessionInfo> done);
  void Get(absl::string_view tenant, const std::string& id, Done<SessionInfo> done);
  // Up to page_size (> 0) sessions that carry all of `labels`, behind `after_id` in the order of
  // ids.
  void List(absl::string_view tenant, int32_t page_size, const std::string& after_id, Labels labels,
            Done<SessionPage> done) {
    pages_.List(tenant, page_size, after_id, std::move(labels), std::move(done));
  }
  void Update(absl::string_view tenant, const std::string& id, const std::string& etag,
              SessionChange change, Done<SessionInfo> done);
  // Forks the committed state, whatever runs on the session meanwhile. RESOURCE_EXHAUSTED as
  // Create, and when there is no room to keep the state besides the one that a running call
  // commits.
  void Fork(absl::string_view tenant, const std::string& id, const std::string& etag,
            SessionSettings settings, Done<SessionInfo> done);
  // The call that writes to it ends with CANCELLED, on whatever daemon it runs. ABORTED when
  // another daemon does not let go of the session.
  void Delete(absl::string_view tenant, const std::string& id, const std::string& etag,
              std::function<void(absl::Status)> done);
  // RESOURCE_EXHAUSTED as Fork.
  void Export(absl::string_view tenant, const std::string& id, const std::string& etag,
              Done<ExportedState> done);
  // The caller has verified `info` and `data` (data empty at position 0). RESOURCE_EXHAUSTED
  // without room.
  void Import(absl::string_view tenant, SessionSettings settings, StateInfo info, StateData data,
              Done<SessionInfo> done);

  // Jobs that became ready since the last call, in the order to be run; each comes back through
  // JobDone. Jobs of one session are never out at the same time.
  std::vector<std::unique_ptr<StoreJob>> TakeJobs();
  void JobDone(std::unique_ptr<StoreJob> job);
  // Something is not on disk yet that will be, once the jobs are run. What a failed try left behind
  // does not count: it is tried again later, for as long as somebody takes jobs.
  bool jobs_outstanding() const;
  // A job was taken and has not come back.
  bool job_out() const { return queue_.out() > 0; }

  // ---- The end ----

  // From now on nothing is read ahead, and what a failed try left behind is tried again at once.
  void PrepareToStop();
  // Whoever waits for the disk is told `why`, and nobody takes jobs or gives them back any more.
  void GiveUp(const absl::Status& why);
  // Sessions that have moved on since their record on disk.
  int64_t unwritten() const;

  // ---- For the engine's calls ----

  // Called when a session is deleted, or taken over by another call, under a call that writes to
  // it.
  void set_cancel_call(SessionTurns::CancelCall cancel) {
    turns_.set_cancel_call(std::move(cancel));
  }
  // Finds the session and calls use->ready once its turn has come and its state can be read: at
  // once or later. Errors as above; ABORTED when another call is writing to it, RESOURCE_EXHAUSTED
  // without room for what the call may commit.
  void Acquire(absl::string_view tenant, const std::string& id, std::shared_ptr<SessionUse> use) {
    turns_.Acquire(tenant, id, std::move(use));
  }
  // The call is over; whoever waited for it goes on. Later calls do nothing.
  void Release(const std::shared_ptr<SessionUse>& use) { turns_.Release(use); }
  // The session's history becomes the one that `slot` (with `data` null) or `data` is the state of.
  // Takes both. `durable`: done once it is on disk, and nothing has changed if it cannot be.
  void Commit(const std::shared_ptr<SessionUse>& use, StateInfo info, int32_t slot, HostState data,
              const std::string& request_id, bool durable, Done<SessionInfo> done) {
    turns_.Commit(use, std::move(info), slot, std::move(data), request_id, durable,
                  std::move(done));
  }

  // Ends sessions whose time is over.
  void Expire(absl::Duration now);
  // When Expire or TakeJobs has something to do next.
  absl::Duration NextDeadline() const;
  void SetGauges();

 private:
  // `looked`: what is in memory of a session of this name was looked up in the store just now.
  void Add(absl::string_view tenant, SessionSettings settings, StatePtr state,
           Done<SessionInfo> done, bool looked = false);
  void GetOnce(absl::string_view tenant, const std::string& id, const Done<SessionInfo>& done);
  void ForkOnce(absl::string_view tenant, const std::string& id, const std::string& etag,
                const SessionSettings& settings, const Done<SessionInfo>& done);
  void ExportOnce(absl::string_view tenant, const std::string& id, const std::string& etag,
                  const Done<ExportedState>& done);
  void StartDelete(Session* session, std::function<void(absl::Status)> done);
  // Ends the session unless it was used meanwhile.
  void ExpireIfOver(Session* session);
  std::unique_ptr<StoreJob> MakeJob(Session* session);
  void RequestsDone(const StoreJob& job);

  SessionsSetup setup_;
  const SessionContext context_;
  SessionTable table_;
  SessionQueue queue_;
  SessionExpiry expiry_;
  SessionOwners owners_;
  SessionEndings endings_;
  SessionReader reader_;
  SessionWriter writer_;
  StateFetcher fetcher_;
  SessionTurns turns_;
  SessionPages pages_;
  bool stopping_ = false;
  int64_t quarantined_ = 0;  // what the stats have
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSIONS_H_
