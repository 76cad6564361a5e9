#include "server/file_watch.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sluice {

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  std::string text;
  ssize_t got = -1;
  if (fd >= 0) {
    char buffer[65536];
    while (text.size() <= max_bytes && (got = read(fd, buffer, sizeof(buffer))) > 0) {
      text.append(buffer, static_cast<size_t>(got));
    }
  }
  const int why = errno;
  if (fd >= 0) close(fd);
  if (got < 0) return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::strerror(why)));
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": larger than ", max_bytes, " bytes"));
  }
  return text;
}

FileWatch::FileWatch(std::vector<std::string> paths) : paths_(std::move(paths)) { Take(); }

FileState FileWatch::Look() {
  std::vector<Version> now = Versions();
  const bool stands_still = now == std::exchange(seen_, now);
  if (!stands_still) return FileState::kMoving;
  if (now == taken_) return FileState::kUnchanged;
  taken_ = std::move(now);
  return FileState::kChanged;
}

void FileWatch::Take() { taken_ = seen_ = Versions(); }

bool FileWatch::AsSeen() const { return Versions() == seen_; }

FileWatch::Version FileWatch::VersionOf(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return {};
  return {info.st_dev, info.st_ino, info.st_size,
          int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
}

std::vector<FileWatch::Version> FileWatch::Versions() const {
  std::vector<Version> versions;
  versions.reserve(paths_.size());
  for (const std::string& path : paths_) versions.push_back(VersionOf(path));
  return versions;
}

}  // namespace sluice
