#include "engine/checkpoint/checkpoint_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr int64_t kMaxReadBytes = int64_t{1} << 30;  // Linux reads less than 2 GiB at once

}  // namespace

CheckpointFile::CheckpointFile(int fd, std::string name, int64_t size)
    : fd_(fd), name_(std::move(name)), size_(size) {}

CheckpointFile::~CheckpointFile() { close(fd_); }

absl::StatusOr<std::unique_ptr<CheckpointFile>> CheckpointFile::Open(const std::string& dir,
                                                                     const std::string& name) {
  const std::string path = absl::StrCat(dir, "/", name);
  // Not blocking: opening a pipe would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat(name, ": cannot be opened"));
  struct stat info;
  if (fstat(fd, &info) != 0) {
    const absl::Status status =
        absl::ErrnoToStatus(errno, absl::StrCat(name, ": cannot be examined"));
    close(fd);
    return status;
  }
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(name, ": is not a regular file"));
  }
  posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  return std::unique_ptr<CheckpointFile>(new CheckpointFile(fd, name, info.st_size));
}

absl::Status CheckpointFile::Read(int64_t offset, int64_t bytes, void* to) const {
  char* next = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t n = pread(fd_, next, std::min(bytes, kMaxReadBytes), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, absl::StrCat(name_, ": cannot be read"));
    if (n == 0) {
      return absl::DataLossError(absl::StrCat(name_, ": ends before byte ", offset + 1, ", had ",
                                              size_, " bytes when opened"));
    }
    next += n;
    offset += n;
    bytes -= n;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadTextFile(const std::string& dir, const std::string& name,
                                         int64_t max_bytes) {
  auto file = CheckpointFile::Open(dir, name);
  if (!file.ok()) return file.status();
  const int64_t size = (*file)->size();
  if (size > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": has ", size, " bytes, must be at most ", max_bytes));
  }
  std::string text(size, '\0');
  const absl::Status status = (*file)->Read(0, size, text.data());
  if (!status.ok()) return status;
  return text;
}

}  // namespace sluice
