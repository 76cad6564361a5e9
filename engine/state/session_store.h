// Sessions on disk, in a directory that several daemons may share.
//
//   sessions/t-TENANT/s-ID/      one directory a session (names escaped)
//     GENERATION.session         its record (record_file.h)
//     GENERATION-RANDOM.state    its state (state_file.h), immutable
//     lost                       its record or state was damaged
//   holder, tmp/RANDOM.lock      who is there (directory_claim.h)
//   tmp/RANDOM/                  a daemon's files in the making, deleted sessions on their way out
//   first-start                  since when last uses are kept
//   quarantine/                  damaged files, for people to look at
//
// The record with the highest generation is the session. A record is never changed: the next
// generation is linked to a name that must be free, so that of two daemons one wins and the other
// is told ABORTED. Whoever finds a higher generation than it wrote looks in that record's lineage
// whether its own was among those followed, or took a name that was free again. A state is linked
// and synced before the record that names it and is removed after the record that follows, so a
// record on disk always has its state. A fork's state is one more link to the same file: the file
// system counts the references. What is acknowledged was synced, the names too.
//
// Blocks on the disk. One thread at a time; lives as long as the jobs that use it.
#ifndef SLUICE_ENGINE_STATE_SESSION_STORE_H_
#define SLUICE_ENGINE_STATE_SESSION_STORE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/files.h"
#include "engine/state/directory_claim.h"
#include "engine/state/session_locks.h"
#include "engine/state/session_record.h"
#include "engine/state/state_header.h"

namespace sluice {

// Sessions that a shared directory may hold.
struct SessionQuota {
  int64_t all = std::numeric_limits<int64_t>::max();
  int64_t of_tenant = std::numeric_limits<int64_t>::max();
};

struct StoreOptions {
  bool shared = false;     // other daemons that say the same may use the directory
  std::string about = "";  // one line that says which daemon this is, for those that are refused
  int64_t lock_slots = SessionLocks::kSlots;  // a test takes few
  // Told of each file or folder that was moved to quarantine, by its name in the directory; by
  // whatever thread calls the store.
  std::function<void(const std::string& name)> on_quarantine = nullptr;
  int64_t now_us = 0;  // the time of day, in microseconds since the Unix epoch
};

class SessionStore {
 public:
  // Makes what is missing of the directory, claims it (directory_claim.h), removes what dead
  // daemons left in the making, and lists the sessions by name alone: one look at a directory for
  // each tenant. Errors name the directory. ABORTED: another daemon has it.
  static absl::StatusOr<std::unique_ptr<SessionStore>> Open(Files* files, const std::string& dir,
                                                            const StateSpec& spec,
                                                            const StoreOptions& options = {});
  SessionStore(const SessionStore&) = delete;
  SessionStore& operator=(const SessionStore&) = delete;

  // The sessions that were there when the store was opened (generation 0: not looked up); call it
  // once. One may turn out to be NOT_FOUND when its record is read: it was being made or deleted
  // when its daemon died.
  std::vector<SessionName> TakeIndex() { return std::move(index_); }

  // The current record, on disk for good even if it was written by a process that died before it
  // could make sure. NOT_FOUND; DATA_LOSS when it was damaged, now or before;
  // FAILED_PRECONDITION when a daemon of another version wrote it.
  absl::StatusOr<SessionRecord> ReadRecord(const std::string& tenant, const std::string& id);

  // Reads like ReadRecord, but when `known` was read or written before and is still the current
  // record, it is given back and nothing is read: one look at the session's directory and one at a
  // file.
  absl::StatusOr<SessionRecord> ReadNewer(const SessionRecord& known);

  // The session of this record was used at record.last_use_us; no record is written.
  absl::Status TouchRecord(const SessionRecord& record);
  // The first start that kept last uses, in microseconds since the Unix epoch: a record whose last
  // use is older was written by a version that did not.
  int64_t first_start_us() const { return first_start_us_; }

  // Tells which daemon has which session; null when the directory is not shared.
  SessionLocks* locks() const { return locks_.get(); }

  // The sessions that are there, by name alone: of one tenant, or all.
  absl::StatusOr<std::vector<SessionName>> ListNames(const std::string* tenant);
  // The number of different files of states that these have; forks share theirs.
  int64_t CountStates(const std::vector<SessionName>& names);

  // Writes `record` as the generation that it says, one above the current (1: a new session).
  // `data`: its state's numbers, when they are not in the session's directory yet; state_id is set.
  // `source`: the session that a new one was forked from, whose state file it shares (where that
  // cannot be: `data`, or a copy); state_id is set. Neither: the state stays the file that state_id
  // names.
  // A new session must leave the directory within `quota`, else RESOURCE_EXHAUSTED.
  // ALREADY_EXISTS: generation 1 of a session that is there. ABORTED: the current generation is
  // another; the newer record can be read. NOT_FOUND: deleted, or the source's state is gone.
  // RESOURCE_EXHAUSTED, UNAVAILABLE: the disk is full or broken; then the session is as before,
  // unless the disk breaks so badly that it can be neither confirmed nor undone, or others wrote
  // kMaxLineage generations before this one could look.
  absl::Status PutRecord(SessionRecord* record, const StateData* data, const SessionRecord* source,
                         const SessionQuota& quota = {});

  // Empty at position 0. DATA_LOSS: damaged. ABORTED: another daemon has moved the session on.
  absl::StatusOr<StateData> ReadState(const SessionRecord& record);
  // Says what ReadState would say. The file is read whole unless it is the one that `known`
  // describes, or nothing is known of it (number 0) and it is `trusted`; `known` then describes it.
  // It is OK that another daemon has moved on a session whose state is trusted.
  absl::Status CheckState(const SessionRecord& record, bool trusted, FileStamp* known);

  // OK when there is none. ABORTED: the current generation is neither `generation` nor, for 0, any.
  absl::Status Delete(const std::string& tenant, const std::string& id, uint64_t generation);

  // Files that were moved to quarantine since it was opened, and while it was. Any thread.
  int64_t quarantined() const { return quarantined_.load(std::memory_order_relaxed); }

 private:
  struct Entry;  // what a session's directory holds

  SessionStore(Files* files, std::string dir, const StateSpec& spec)
      : files_(files), dir_(std::move(dir)), spec_(spec) {}

  absl::Status Prepare();
  absl::Status NoteFirstStart(int64_t now_us);
  absl::Status Claim(const StoreOptions& options);

  absl::StatusOr<SessionRecord> ReadCurrent(const std::string& tenant, const std::string& id);
  absl::StatusOr<Entry> Look(const std::string& session_dir);
  absl::StatusOr<std::string> MakeSessionDir(const SessionRecord& record);
  absl::StatusOr<std::string> WriteTemp(absl::Span<const absl::string_view> pieces);
  absl::Status ShareState(const std::string& to, const StateData* data,
                          const SessionRecord& source);
  absl::Status WriteState(const std::string& to, const StateInfo& info, const StateData& data);
  absl::Status PutState(const std::string& session_dir, SessionRecord* record,
                        const StateData* data, const SessionRecord* source);
  absl::Status CheckQuota(const std::string& tenant, const SessionQuota& quota);
  absl::Status LinkRecord(const std::string& session_dir, const SessionRecord& record);
  absl::Status Confirm(const std::string& session_dir, const SessionRecord& record);
  bool IsFollowed(const SessionRecord& record);
  void RemoveOld(const std::string& session_dir, const SessionRecord& record);
  void Quarantine(const std::string& session_dir, const std::string& name);
  // A file where a folder should be. False: there is none.
  bool QuarantineFile(const std::string& path);

  Files* const files_;
  const std::string dir_;
  const StateSpec spec_;
  std::unique_ptr<DirectoryClaim> claim_;
  std::unique_ptr<SessionLocks> locks_;
  std::vector<SessionName> index_;
  int64_t first_start_us_ = 0;
  std::function<void(const std::string&)> on_quarantine_;
  std::atomic<int64_t> quarantined_{0};
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_SESSION_STORE_H_
