// A daemon's place in a session directory: who may be there beside whom, and its own folder for
// files in the making.
//
//   holder              byte 0 is locked for as long as a daemon lives: exclusively by one that has
//                       the directory for itself, shared by those that share it
//   tmp/RANDOM.lock     locked by the daemon that the folder tmp/RANDOM belongs to
//   tmp/RANDOM/daemon   one line for people: which process of which host it is
//
// The kernel drops the locks at a process's death, so what a dead daemon left never keeps the next
// one out; its folder is removed by whoever starts next. Daemons of versions that knew no holder
// have a locked tmp/RANDOM.lock and no line about themselves: nobody starts beside one.
#ifndef SLUICE_ENGINE_STATE_DIRECTORY_CLAIM_H_
#define SLUICE_ENGINE_STATE_DIRECTORY_CLAIM_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/files.h"

namespace sluice {

class DirectoryClaim {
 public:
  // `about` says in one line which daemon this is. ABORTED: another daemon is in the way, and the
  // message says which. UNAVAILABLE: the file system has no locks that work, no second names for
  // files, or is broken.
  static absl::StatusOr<std::unique_ptr<DirectoryClaim>> Take(Files* files, const std::string& dir,
                                                              bool shared,
                                                              const std::string& about);
  DirectoryClaim(const DirectoryClaim&) = delete;
  DirectoryClaim& operator=(const DirectoryClaim&) = delete;

  const std::string& temp_dir() const { return temp_dir_; }

 private:
  DirectoryClaim(Files* files, std::string dir) : files_(files), dir_(std::move(dir)) {}

  absl::Status LockHolder(bool shared);
  absl::Status ClearUp(bool shared);
  absl::Status MakeTemp(const std::string& about);
  absl::Status Probe();
  absl::Status Refusal();

  Files* const files_;
  const std::string dir_;
  std::unique_ptr<Files::ByteLocks> holder_;
  std::unique_ptr<Files::Lock> temp_lock_;
  std::string temp_dir_;
};

// Makes sure that byte locks of two openings of `path` exclude each other. UNAVAILABLE: they do
// not.
absl::Status CheckLocks(Files* files, const std::string& path);

// Removes a folder with all that is in it, as far as that goes.
void RemoveTree(Files* files, const std::string& dir);

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_DIRECTORY_CLAIM_H_
