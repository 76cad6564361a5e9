// Reading the files of a model directory: positioned reads of regular files, never a mapping, so
// that a file that shrinks under us is an error and not a SIGBUS.
#ifndef SLUICE_ENGINE_CHECKPOINT_CHECKPOINT_FILE_H_
#define SLUICE_ENGINE_CHECKPOINT_CHECKPOINT_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice {

// An open file. Reads are safe from any thread.
class CheckpointFile {
 public:
  // NOT_FOUND when there is none; INVALID_ARGUMENT when it is not a regular file.
  static absl::StatusOr<std::unique_ptr<CheckpointFile>> Open(const std::string& dir,
                                                              const std::string& name);
  ~CheckpointFile();
  CheckpointFile(const CheckpointFile&) = delete;
  CheckpointFile& operator=(const CheckpointFile&) = delete;

  const std::string& name() const { return name_; }  // within the directory
  int64_t size() const { return size_; }             // when it was opened

  // Reads exactly `bytes` at `offset`; DATA_LOSS when the file has become shorter.
  absl::Status Read(int64_t offset, int64_t bytes, void* to) const;

 private:
  CheckpointFile(int fd, std::string name, int64_t size);

  const int fd_;
  const std::string name_;
  const int64_t size_;
};

// A whole text file of at most `max_bytes`.
absl::StatusOr<std::string> ReadTextFile(const std::string& dir, const std::string& name,
                                         int64_t max_bytes);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_CHECKPOINT_FILE_H_
