// The sessions of one engine: what SessionService offers, and what calls need of a session.
//
// Lives on the thread that drives the engine. It does no file access itself: it queues StoreJobs,
// which a driver takes, runs elsewhere and gives back.
#ifndef SLUICE_ENGINE_SESSIONS_H_
#define SLUICE_ENGINE_SESSIONS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/session.h"
#include "engine/session_info.h"
#include "engine/state/state_info.h"
#include "engine/state_cache.h"
#include "engine/stats.h"
#include "engine/store_job.h"
#include "engine/wall_age.h"

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

struct SessionPage {
  std::vector<SessionInfo> sessions;  // ordered by id
  std::string next_after;             // "": the last page
};

struct ExportedState {
  SessionInfo session;
  StateInfo info;
  std::shared_ptr<const StateData> data;  // null at position 0
};

struct SessionLimits {
  int64_t max_sessions = 100000;
  int64_t max_sessions_per_tenant = 100000;
  absl::Duration default_ttl = absl::Hours(1);
  int64_t host_state_bytes = int64_t{1} << 30;
  int64_t disk_state_bytes = int64_t{16} << 30;  // counts with a store only
};

// Called exactly once, on the engine's thread, from within the call or later.
template <typename T>
using Done = std::function<void(absl::StatusOr<T>)>;

struct SessionsSetup {
  SessionLimits limits;
  std::string fingerprint;  // of the model
  std::string numerics_id;  // of the backend
  int64_t vocab = 0;
  bool has_store = false;
  bool shared = false;  // other daemons use the store's directory too
  // Records whose last use is older were written by a version that did not keep it.
  absl::Time last_uses_since = absl::InfinitePast();
  std::function<void(const std::string&)> on_wrong_clock;  // one line; null: nobody is told
  std::vector<SessionName> index;                          // what the store had at the start
  std::function<uint64_t()> random;                        // null: the system's
};

class Sessions {
 public:
  using Labels = std::map<std::string, std::string>;

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
            Done<SessionPage> done);
  void Update(absl::string_view tenant, const std::string& id, const std::string& etag,
              SessionChange change, Done<SessionInfo> done);
  // Of the committed state, whatever runs on the session meanwhile. RESOURCE_EXHAUSTED as Create,
  // and when there is no room to keep the state besides the one that a running call commits.
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
  bool job_out() const { return !out_.empty(); }

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
  void set_cancel_call(std::function<void(uint64_t call, absl::Status)> cancel) {
    cancel_call_ = std::move(cancel);
  }
  // Finds the session and calls use->ready once its turn has come and its state can be read: at
  // once or later. Errors as above; ABORTED when another call is writing to it, RESOURCE_EXHAUSTED
  // without room for what the call may commit.
  void Acquire(absl::string_view tenant, const std::string& id, std::shared_ptr<SessionUse> use);
  // The call is over; whoever waited for it goes on. Later calls do nothing.
  void Release(const std::shared_ptr<SessionUse>& use);
  // The session's history becomes the one that `slot` (with `data` null) or `data` is the state of.
  // Takes both. `durable`: done once it is on disk, and nothing has changed if it cannot be.
  void Commit(const std::shared_ptr<SessionUse>& use, StateInfo info, int32_t slot, HostState data,
              const std::string& request_id, bool durable, Done<SessionInfo> done);

  // Ends sessions whose time is over.
  void Expire(absl::Duration now);
  // When Expire or TakeJobs has something to do next.
  absl::Duration NextDeadline() const;
  void SetGauges();

 private:
  using Found = std::function<void(absl::StatusOr<Session*>)>;
  // A page in the making.
  struct Listing {
    SessionKey after;  // the last one looked at
    int32_t page_size = 0;
    Labels labels;
    SessionPage page;
    int32_t unread = 0;             // records on their way
    std::set<std::string> looked;   // ids whose records were read for it, or could not be
    std::set<std::string> checked;  // ids whose states were
    int64_t bytes_to_check = int64_t{64} << 20;
    Done<SessionPage> done;
  };

  // Calls `found` with a session that is there for the tenant, its newest record read.
  void Find(absl::string_view tenant, const std::string& id, Found found);
  Session* Lookup(const SessionKey& key);
  // The same; without it, one that is to be looked for in the store. Null: there is no store.
  Session* LookupOrInsert(const SessionKey& key);
  // `looked`: what is in memory of a session of this name was looked up in the store just now.
  void Add(absl::string_view tenant, SessionSettings settings, StatePtr state,
           Done<SessionInfo> done, bool looked = false);
  void ForkOnce(absl::string_view tenant, const std::string& id, const std::string& etag,
                const SessionSettings& settings, const Done<SessionInfo>& done);
  void ExportOnce(absl::string_view tenant, const std::string& id, const std::string& etag,
                  const Done<ExportedState>& done);
  Session* Insert(SessionKey key, bool indexed);
  // The last act: nothing points at the session afterwards.
  void Remove(Session* session, const absl::Status& status);
  absl::Status CheckLimits(const std::string& tenant) const;
  absl::Status CheckModel(const Session& session) const;
  absl::Status CheckEtag(const Session& session, const std::string& etag) const;
  static absl::Status NotFound(const SessionKey& key);
  void ContinueListing(const std::shared_ptr<Listing>& listing);
  void Change(Session* session, PendingChange change);
  // Another daemon has written the session: the record is read again, and what was to be changed
  // here fails.
  void LoseRace(Session* session);
  // What is known of the session counts no more; what waits for the disk ends with `why`.
  void Reread(Session* session, const absl::Status& why);
  void StartDelete(Session* session, std::function<void(absl::Status)> done);
  SessionInfo Info(const Session& session) const;
  // Ends the session unless it was used meanwhile.
  void ExpireIfOver(Session* session);
  static absl::Duration ExpiryOf(const Session& session);
  static bool InUse(const Session& session);
  // The disk says when the session was last used, by whichever daemon.
  void TakeLastUse(Session* session, const SessionRecord& record);
  void Touch(Session* session);
  void SetExpiry(Session* session, absl::Duration expiry);
  std::string RandomId();
  void WithData(const StatePtr& state, std::function<void(absl::Status)> ready);

  void TakeTurn(Session* session, const std::shared_ptr<SessionUse>& use);
  void Start(Session* session, const std::shared_ptr<SessionUse>& use);
  absl::Status ReserveFor(const Session& session, SessionUse* use);
  // Whether the session's state goes with the next commit: it is nobody else's, and it could be
  // read again should the commit fail.
  bool MayReplace(const Session& session) const;
  // Somebody wants to keep the session's state, whatever the call that writes to it commits.
  // RESOURCE_EXHAUSTED when there is no room for both.
  absl::Status KeepState(Session* session);
  // The place of the use's state is the committed one's now.
  void LeavePlace(SessionUse* use);
  void StartNext(Session* session);

  void Enqueue(Session* session);
  std::unique_ptr<StoreJob> NewJob(StoreJob::Kind kind, Session* session);
  std::unique_ptr<StoreJob> MakeJob(Session* session);
  std::unique_ptr<StoreJob> MakeFetch(const StatePtr& state);
  std::unique_ptr<StoreJob> TouchJob(Session* session);
  std::unique_ptr<StoreJob> PutJob(Session* session);
  // Whether the session's file may go away: nobody else needs it, or all that do can do without.
  bool MayDropFile(Session* session);
  SessionRecord RecordOf(const Session& session, const SessionContent& content) const;
  void SetStored(Session* session, StatePtr state, const std::string& state_id);
  void ReadDone(Session* session, StoreJob* job);
  void PutDone(Session* session, StoreJob* job);
  void DeleteDone(Session* session, StoreJob* job);
  void FetchDone(Session* holder, StoreJob* job);
  void CheckDone(Session* session, const absl::Status& status);
  // Calls `checked` once it is known whether the session's state can be read.
  void CheckState(Session* session, std::function<void(absl::Status)> checked);
  // The session's record or state turned out to be damaged: `why`.
  void Lose(Session* session, const absl::Status& why);
  void GetOnce(absl::string_view tenant, const std::string& id, const Done<SessionInfo>& done);
  void FinishFetch(const StatePtr& state, const absl::Status& status);
  // Ends what waits for a state that will never arrive; what can go on then.
  std::unique_ptr<StoreJob> FailPut(Session* session);
  void Retry(Session* session);
  absl::Status TakeRecord(Session* session, const SessionRecord& record, bool unchanged);

  // ---- With a shared directory (shared_sessions.cc) ----

  // As Find, with a session that this daemon owns; ABORTED when it does not within `patience`.
  void FindOwned(absl::string_view tenant, const std::string& id, SessionWish wish,
                 absl::Duration patience, Found found);
  // What is in memory may not be the newest: another daemon could have written it.
  bool MustLook(const Session& session) const { return setup_.shared && !session.owned; }
  bool MayStart(const Session& session) const {
    return !setup_.shared || (session.owned && !session.yields);
  }
  void SetOwned(Session* session, bool owned);
  void SetLook(Session* session, absl::Duration when);
  SessionWish WishOf(const Session& session) const;
  std::unique_ptr<StoreJob> LookJob(Session* session);
  std::unique_ptr<StoreJob> ReleaseJob(Session* session);
  // Whether nothing here needs the session any more, but for the first of its changes if
  // `with_change`.
  bool IsIdle(const Session& session, bool with_change) const;
  // Serves those who asked for what is newest.
  void LookDone(const SessionKey& key, const StoreJob& job);
  void HeldElsewhere(Session* session, SessionHolder holder);
  // All that wait for a look at the session; they are told by the caller.
  std::vector<std::function<void(absl::Status)>> TakeWaits(Session* session);
  void MarkDone(Session* session, const absl::Status& status);
  void AddSharedJobs(absl::Duration now, std::vector<std::unique_ptr<StoreJob>>* jobs);
  void RequestsDone(const StoreJob& job);
  void ListDone(const StoreJob& job);
  void TakeNames(const std::vector<SessionName>& names, const std::string* tenant);

  StateCache* const states_;
  const Clock* const clock_;
  EngineStats* const stats_;
  SessionsSetup setup_;
  std::function<void(uint64_t, absl::Status)> cancel_call_;
  std::map<SessionKey, std::unique_ptr<Session>> sessions_;
  absl::flat_hash_map<std::string, int64_t> per_tenant_;  // indexed ones
  int64_t total_ = 0;
  int64_t busy_ = 0;  // sessions of sessions_ that a call writes to
  std::set<std::pair<absl::Duration, SessionKey>> expiries_;
  WallAge ages_;

  // With a store.
  std::deque<SessionKey> queue_;                      // sessions that want a job
  std::deque<StatePtr> fetches_;                      // states to be read
  absl::flat_hash_map<uint64_t, StatePtr> fetching_;  // by job
  std::map<uint64_t, std::vector<SessionKey>> out_;   // sessions a job holds, by job
  std::deque<SessionKey> unread_;  // of the index, to be read when there is nothing better to do
  std::set<std::pair<absl::Duration, SessionKey>> retries_;  // after writes that failed
  uint64_t last_job_ = 0;
  int64_t quarantined_ = 0;  // that `stats_` has
  uint64_t idle_read_ = 0;   // the job that reads one of unread_; 0: none

  // With a shared directory.
  bool stopping_ = false;
  std::set<SessionKey> owned_;
  std::deque<SessionKey> releases_;  // sessions that are gone, whose locks are still ours
  std::set<std::pair<absl::Duration, SessionKey>> looks_;  // sessions whose lock others had
  std::map<std::string, std::vector<std::shared_ptr<Listing>>> to_list_;  // by tenant
  std::map<uint64_t, std::vector<std::shared_ptr<Listing>>> listing_;     // by job
  uint64_t requests_job_ = 0;                                             // 0: none is out
  uint64_t list_job_ = 0;                                                 // of all tenants
  absl::Duration next_requests_;
  absl::Duration next_list_;
  absl::Duration list_began_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_H_
