// Tells which of the daemons that share a directory a session is with (README.md beside this file).
//
//   owners     a byte for each session (a hash of tenant and id): its owner locks it,
//              exclusively while a call may write there, shared once what that call committed was
//              acknowledged and is not on disk yet
//   requests   bytes for each session: each locked, shared, by daemons that wait for its owner
//
// The kernel drops the locks at a process's death, so there is nothing to clear up. Two sessions of
// one hash are never owned by two daemons at once: one waits for the other. Blocks like Files; one
// thread at a time.
#ifndef SLUICE_ENGINE_STATE_SESSION_LOCKS_H_
#define SLUICE_ENGINE_STATE_SESSION_LOCKS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/files.h"

namespace sluice {

// Another daemon's hold on a session.
enum class SessionHolder : uint8_t {
  kNobody,
  kCall,       // a call may write to it
  kUnwritten,  // the same, or none any more; and what was acknowledged is not on disk yet
};

// A daemon's request to the owner of a session; a later one includes those before.
enum class SessionWish : uint8_t {
  kNone,
  kTurn,    // to be next, before other calls of the owner's
  kCancel,  // and that the call that runs is cancelled
  kDelete,  // because the session is to be deleted
};

class SessionLocks {
 public:
  using Key = std::pair<std::string, std::string>;  // tenant and id

  static constexpr int64_t kSlots = int64_t{1} << 60;

  // UNAVAILABLE: the file system has no locks that work. `slots`: the hash's values; a test takes
  // few.
  static absl::StatusOr<std::unique_ptr<SessionLocks>> Open(Files* files, const std::string& dir,
                                                            int64_t slots = kSlots);

  // True: the session is this daemon's, as one that a call may write to. False: it is another's.
  absl::StatusOr<bool> Own(const Key& key);
  // Says of a session that this daemon owns whether something of it is acknowledged and not on
  // disk.
  absl::Status Mark(const Key& key, bool unwritten);
  // Also of a session that is not this daemon's.
  void Release(const Key& key);
  // The hold of other daemons on it.
  absl::StatusOr<SessionHolder> HolderOf(const Key& key);

  // Asks whoever owns the session; kNone: nothing any more. Stays until then.
  absl::Status Ask(const Key& key, SessionWish wish);
  // The strongest wish of the others.
  absl::StatusOr<SessionWish> AskedOf(const Key& key);
  // True if any other daemon asks for anything. Takes one system call.
  absl::StatusOr<bool> AnybodyAsks();

 private:
  SessionLocks(std::unique_ptr<Files::ByteLocks> owners, std::unique_ptr<Files::ByteLocks> requests,
               int64_t slots)
      : owners_(std::move(owners)), requests_(std::move(requests)), slots_(slots) {}

  const std::unique_ptr<Files::ByteLocks> owners_;
  const std::unique_ptr<Files::ByteLocks> requests_;
  const int64_t slots_;
  std::map<int64_t, Key> owned_;      // by byte: whose session it is locked for
  std::map<Key, SessionWish> asked_;  // what this daemon asks for
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_SESSION_LOCKS_H_
