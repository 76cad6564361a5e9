// One session inside the engine. Internal to engine/.
#ifndef SLUICE_ENGINE_SESSION_H_
#define SLUICE_ENGINE_SESSION_H_

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
#include "engine/state_cache.h"

namespace sluice {

struct Session;

// ABORTED: another daemon has moved the session on.
absl::Status LostRace();
bool IsLostRace(const absl::Status& status);

// What a call holds of its session, or waits for.
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

// What must be on disk before it counts; then applied to whatever the content is by then.
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

  // With a store. The record on disk says `stored_version` of the content.
  uint64_t generation = 0;
  uint64_t version = 1;
  uint64_t stored_version = 0;
  StatePtr stored_state;
  std::string stored_state_id;  // names its file
  std::deque<PendingChange> changes;
  std::vector<std::function<void(absl::Status)>> on_read;
  std::vector<std::function<void(absl::Status)>> on_checked;  // whether its state can be read
  bool lost = false;  // its record or state is damaged: unread, and there to be deleted
  std::vector<std::function<void(absl::Status)>> on_deleted;
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

  // With a directory that is shared (state/README.md).
  bool owned = false;           // by this daemon: what is in memory is the newest
  bool marked = false;          // the others can see that something is not written yet
  bool yields = false;          // another daemon waits for it, and is next
  bool asking = false;          // another daemon is asked for it
  bool busy_elsewhere = false;  // a call may write to it on another daemon, when it was looked at
  uint64_t file_number = 0;     // of the record that is in memory
  absl::Duration look_at = -absl::InfiniteDuration();      // no look for its lock before this
  absl::Duration look_pause;                               // after the next look in vain
  std::vector<std::function<void(absl::Status)>> reading;  // those of on_read whose job is out
  std::vector<SessionWait> for_owner;
  std::vector<SessionWait> for_written;
  std::vector<std::function<void(absl::Status)>> marks;  // want `marked` before they acknowledge
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSION_H_
