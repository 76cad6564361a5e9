// Work for the session store that the engine asks for and somebody else does: on the server's store
// thread, in a test inline.
#ifndef SLUICE_ENGINE_STORE_JOB_H_
#define SLUICE_ENGINE_STORE_JOB_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "engine/state/session_record.h"

namespace sluice {

class SessionStore;

struct StoreJob {
  enum class Kind : uint8_t {
    kReadRecord,  // record.tenant and .id -> record
    kPutRecord,   // record; `data` when its state is not on disk yet; `source`, when a fork's is
    kReadState,   // record -> data
    kDelete,      // record.tenant, .id and .generation
  };

  Kind kind = Kind::kReadRecord;
  uint64_t id = 0;  // the engine's own
  SessionRecord record;
  SessionRecord source;  // kPutRecord, a fork: whose file the state is in; id "" otherwise
  std::shared_ptr<const StateData> data;
  absl::Status status;
};

// Does the job and fills in its status and results. Blocks on the disk; one thread at a time for
// each store.
void RunStoreJob(SessionStore* store, StoreJob* job);

}  // namespace sluice

#endif  // SLUICE_ENGINE_STORE_JOB_H_
