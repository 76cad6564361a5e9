// Notices when files that something was read from have changed.
#ifndef SLUICE_SERVER_FILE_WATCH_H_
#define SLUICE_SERVER_FILE_WATCH_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice {

// The whole file, which must not be larger than `max_bytes`. INVALID_ARGUMENT "PATH: why".
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes);

enum class FileState : uint8_t {
  kUnchanged,  // still what was taken
  kMoving,     // differs from what the look before found: somebody may be writing
  kChanged,    // two looks found the same, which was not taken yet; it counts as taken now
};

// One thread at a time.
class FileWatch {
 public:
  // The files that are there now count as taken.
  explicit FileWatch(std::vector<std::string> paths);

  FileState Look();
  // The files that are there now count as taken, even while they change.
  void Take();
  // Nothing was replaced or written since the last Look or Take. Asked after the files were read:
  // they are then one version of each.
  bool AsSeen() const;

 private:
  // Tells one version of a file from another. A file that is not there has a version too.
  struct Version {
    uint64_t device = 0;
    uint64_t inode = 0;
    int64_t size = -1;
    int64_t modified_ns = 0;
    bool operator==(const Version&) const = default;
  };

  static Version VersionOf(const std::string& path);
  std::vector<Version> Versions() const;

  const std::vector<std::string> paths_;
  std::vector<Version> taken_;
  std::vector<Version> seen_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_FILE_WATCH_H_
