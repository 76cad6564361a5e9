// Work for the session store that the engine asks for and somebody else does: on the server's store
// thread, in a test inline.
#ifndef SLUICE_ENGINE_STORE_JOB_H_
#define SLUICE_ENGINE_STORE_JOB_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/state/session_locks.h"
#include "engine/state/session_record.h"
#include "engine/state/session_store.h"

namespace sluice {

// The lock of a session after it was written.
enum class LockAfter : uint8_t {
  kAsBefore,
  kCall,  // all is written, and a call may write to it again
  kFree,
};

struct StoreJob {
  enum class Kind : uint8_t {
    kReadRecord,  // record.tenant and .id -> record
    kPutRecord,   // record; `data` when its state is not on disk yet; `source`, when a fork's is
    kReadState,   // record -> data
    kCheckState,  // record, trusted, file -> file, and whether its state can be read
    kTouch,       // record.tenant, .id, .generation and .last_use_us
    kDelete,      // record.tenant, .id and .generation
    // The kinds below are for a directory that is shared (state/README.md).
    kMark,      // what is acknowledged of the session is not on disk yet, for the others to see
    kRelease,   // the session is no longer this daemon's, and nobody is asked for it
    kRequests,  // names -> wishes of other daemons, one for each
    kList,      // -> names; with `all`, of all tenants, and -> states; else of record.tenant
  };

  Kind kind = Kind::kReadRecord;
  uint64_t id = 0;  // the engine's own
  // kReadRecord: with a generation, what is known already.
  SessionRecord record;
  SessionRecord source;  // kPutRecord, a fork: whose file the state is in; id "" otherwise
  std::shared_ptr<const StateData> data;
  absl::Status status;
  int64_t quarantined = 0;  // out: SessionStore::quarantined()
  bool trusted = false;     // kCheckState: as SessionStore::CheckState has them
  FileStamp file;           //

  // The fields below are for a shared directory.
  bool own = false;                        // kReadRecord: to become its owner first
  SessionWish wish = SessionWish::kNone;   // kReadRecord: what its owner is asked for if it cannot
  LockAfter after = LockAfter::kAsBefore;  // kPutRecord, once it is on disk
  SessionQuota quota;                      // kPutRecord of a new one
  bool all = false;                        // kList
  std::vector<SessionName> names;          // kRequests, kList
  bool owned = false;                      // out, kReadRecord
  bool unchanged = false;                  // out, kReadRecord: it is as it was known
  SessionHolder holder = SessionHolder::kNobody;  // out, kReadRecord: of others
  std::vector<SessionWish> wishes;                // out, kRequests
  int64_t states = 0;                             // out, kList: files of states, each counted once
};

// Does the job and fills in its status and results. Blocks on the disk; one thread at a time for
// each store.
void RunStoreJob(SessionStore* store, StoreJob* job);

}  // namespace sluice

#endif  // SLUICE_ENGINE_STORE_JOB_H_
