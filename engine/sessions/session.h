// One session inside the engine, and every condition that it may be in. Internal to engine/.
//
// Its phase, from the moment at which the daemon knows its name:
//
//   new -> kUnread            found in the store's index, or somebody asks for its name
//   new -> kCreating          Create, Fork and Import, with a store
//   new -> kLive              the same, without one
//   kUnread -> kLive          its record was read; if there is none, the session is removed
//   kCreating -> kLive        its first record is on disk; if that fails, it is removed
//   kLive -> kUnread          another daemon has written it, it turned out to be damaged (`lost`),
//                             or its time is over and the disk says whether it was used elsewhere
//   kLive, kUnread -> kDeleting   Delete, also of one that is damaged, and the end of its time
//   kDeleting -> removed      its file is gone (SessionEndings::Remove)
//   kDeleting -> kUnread      the disk did not do it, or another daemon has written it
//
// A call that writes holds the session through `writer` from its turn to its end, in phase kLive;
// should the phase change under it, `outdated` refuses its commit. Calls in `waiting` have their
// turns in order, as soon as the phase is kLive, there is no writer and this daemon owns the
// session.
//
// The content in memory is newer than the record on disk while version > stored_version. The flags:
//
//   indexed         counts as one of the tenant's sessions. False only in kUnread, for a name that
//                   somebody asked for
//   lost            kUnread, and its record or state is damaged: it is listed and may be deleted
//   queued          stands in SessionQueue and wants a job
//   job_out         a job has it, or its file: no other job is made meanwhile
//   counted_unread  StateCache::AddUnread counts a state on disk for it. Until it was read once
//   touched         the disk is to be told of its last use
//   out_has_change  the job that is out writes the first of `changes`. Means nothing without one
//   backing_off     a write failed: the next one is among SessionQueue's retries
//
// A shared directory adds:
//
//   owned           this daemon owns it: nobody else writes it
//   marked          owned, and the others can see that something is not written yet
//   yields          owned, and another daemon is next: no call has its turn here before
//   asking          not owned, and its owner is asked for it
//   busy_elsewhere  not owned, and a call may write to it there, when it was last looked at
#ifndef SLUICE_ENGINE_SESSIONS_SESSION_H_
#define SLUICE_ENGINE_SESSIONS_SESSION_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/request.h"
#include "engine/state/session_locks.h"
#include "engine/state/session_record.h"
#include "engine/state_cache.h"

namespace sluice {

struct Session;

// ABORTED: another daemon has moved the session on.
absl::Status LostRace();
bool IsLostRace(const absl::Status& status);

// Each is called once.
using Waits = std::vector<std::function<void(absl::Status)>>;

// A call's hold on its session, or its place in the wait for it.
struct SessionUse {
  uint64_t call = 0;
  std::string etag;
  bool writes = false;   // else it reads what is committed, and takes no lock
  absl::Duration since;  // it waits for its turn
  int lost_races = 0;    // of one that reads: its state went while it was to be read
  OnConflict on_conflict = OnConflict::kFail;
  // Called once, unless the use is released before: OK when `state` may be read.
  std::function<void(absl::Status)> ready;

  Session* session = nullptr;  // that it writes to or waits for; null: none yet, or gone
  StatePtr state;              // the committed one; null: no history
  Pin pin;
  Room room;                // for what it commits
  int64_t most_tokens = 0;  // that it adds to the history
  int64_t room_bytes = 0;   // what the state may come to, which room was made for
  bool in_place = false;    // the room is that of `state`, which nobody else may keep meanwhile
  bool committing = false;  // on its way to the disk: too late to be cancelled
  bool outdated = false;    // another daemon has written the session meanwhile
  bool released = false;
};

// The part of a session that changes.
struct SessionContent {
  std::string etag;
  StatePtr state;  // null at position 0
  std::string last_request_id;
  absl::Duration ttl;
  std::map<std::string, std::string> labels;
  absl::Time update_time;
};

// A change that must be on disk before it counts. It is then applied to the content of that moment.
struct PendingChange {
  std::string etag;  // the session's must be this one; "": any
  std::function<void(SessionContent*)> apply;
  std::function<void(absl::Status)> done;
};

// Something that cannot be done before this daemon owns the session, or before what another daemon
// acknowledged of it is on disk.
struct SessionWait {
  SessionWish wish = SessionWish::kTurn;
  absl::Duration until;                    // no longer than this
  std::function<void(absl::Status)> then;  // called once
};

enum class SessionPhase : uint8_t {
  kUnread,    // its record is to be read, for the first time or again
  kCreating,  // not on disk yet, so not there yet for anybody
  kLive,
  kDeleting,  // gone for everybody, not yet from the disk
};

struct Session {
  SessionKey key;
  SessionPhase phase = SessionPhase::kLive;
  bool indexed = true;  // there is such a session; false: whether, the record to be read will tell
  std::string affinity;
  std::string fingerprint;
  absl::Time create_time;
  absl::Duration created;  // on the steady clock; of a session that was read: when it was
  SessionContent now;
  absl::Duration last_use = -absl::InfiniteDuration();
  absl::Duration keep_until = -absl::InfiniteDuration();  // whatever its time to live
  absl::Duration told_use = -absl::InfiniteDuration();    // the last use that the disk has
  absl::Time disk_use = absl::InfinitePast();             // the same, as it is there
  bool touched = false;                                   // the disk is to be told of a later one
  absl::Duration expiry = absl::InfiniteDuration();       // its place among the expiries

  std::shared_ptr<SessionUse> writer;
  std::deque<std::shared_ptr<SessionUse>> waiting;

  // These count with a store alone. The record on disk says `stored_version` of the content.
  uint64_t generation = 0;
  uint64_t version = 1;
  uint64_t stored_version = 0;
  StatePtr stored_state;
  std::string stored_state_id;  // names its file
  std::deque<PendingChange> changes;
  Waits on_read;
  Waits on_checked;   // whether its state can be read
  bool lost = false;  // its record or state is damaged: unread, and there to be deleted
  Waits on_deleted;
  bool queued = false;          // wants a job
  bool job_out = false;         // has one, or lends its file to one
  bool counted_unread = false;  // in StateCache::AddUnread
  SessionContent out;           // what the job writes
  Pin out_pin;                  // what the job takes the file of, when others still need it
  Pin out_data_pin;             // what the job writes from memory, should the file be gone
  uint64_t out_version = 0;
  bool out_has_change = false;                // the first of `changes` is in it
  bool backing_off = false;                   // among the retries
  absl::Duration backoff = absl::Seconds(1);  // after the next failed write

  // These count in a shared directory alone (state/README.md).
  bool owned = false;           // by this daemon: what is in memory is the newest
  bool marked = false;          // the others can see that something is not written yet
  bool yields = false;          // another daemon waits for it, and is next
  bool asking = false;          // another daemon is asked for it
  bool busy_elsewhere = false;  // a call may write to it on another daemon, when it was looked at
  uint64_t file_number = 0;     // of the record that is in memory
  absl::Duration look_at = -absl::InfiniteDuration();  // no look for its lock before this
  absl::Duration look_pause;                           // after the next look in vain
  Waits reading;                                       // those of on_read whose job is out
  std::vector<SessionWait> for_owner;
  std::vector<SessionWait> for_written;
  Waits marks;  // want `marked` before they acknowledge
};

// The record that the disk is to have of the session with this content, at this time of day.
SessionRecord RecordOf(const Session& session, const SessionContent& content, absl::Time now);
// The record on disk is one with this state, whose file `state_id` names.
void SetStored(Session* session, StatePtr state, const std::string& state_id);
// All that wait for a look at the session; the caller tells them.
Waits TakeWaits(Session* session);
// The session has no calls that wait for their turns any more; the caller tells them.
Waits TakeWaiting(Session* session);

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSION_H_
