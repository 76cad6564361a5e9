#include "server/tls_folder.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr absl::string_view kPrefix = "sluiced-tls-";
// Another daemon may take a new folder for a leftover before it is locked.
constexpr int kMaxTries = 16;

absl::Status ErrnoError(const std::string& path) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::strerror(errno)));
}

void Remove(const std::string& path) {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

// A descriptor of the folder that holds its lock; -1 if another has the lock (and `operation` says
// LOCK_NB), if the folder is gone, or if it is another user's.
int Lock(const std::string& path, int operation) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -1;
  struct stat named {};
  struct stat opened {};
  // Another daemon that removes leftovers may have been faster: the path must still name the locked
  // folder.
  if (fstat(fd, &opened) == 0 && opened.st_uid == geteuid() && flock(fd, operation) == 0 &&
      lstat(path.c_str(), &named) == 0 && named.st_ino == opened.st_ino) {
    return fd;
  }
  close(fd);
  return -1;
}

// Folders whose daemon is gone: their lock is free.
void RemoveLeftovers(const std::string& parent) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent, error)) {
    if (!absl::StartsWith(entry.path().filename().native(), kPrefix)) continue;
    const int lock = Lock(entry.path(), LOCK_EX | LOCK_NB);
    if (lock < 0) continue;
    Remove(entry.path());
    close(lock);
  }
}

absl::Status WriteFile(const std::string& path, absl::string_view text, int64_t modified_s) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoError(path);
  absl::Status status;
  while (!text.empty() && status.ok()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno != EINTR) status = ErrnoError(path);
    if (written > 0) text.remove_prefix(static_cast<size_t>(written));
  }
  const timespec time = {.tv_sec = modified_s, .tv_nsec = 0};
  const timespec times[] = {time, time};
  if (status.ok() && futimens(fd, times) != 0) status = ErrnoError(path);
  close(fd);
  return status;
}

}  // namespace

std::vector<std::string> TlsFolder::DefaultParents() {
  const char* temporary = std::getenv("TMPDIR");
  return {"/dev/shm", temporary == nullptr || *temporary == '\0' ? "/tmp" : temporary};
}

absl::StatusOr<std::unique_ptr<TlsFolder>> TlsFolder::Create(
    const std::vector<std::string>& parents) {
  std::string why;
  for (const std::string& parent : parents) {
    RemoveLeftovers(parent);
    for (int i = 0; i < kMaxTries; ++i) {
      std::string path = absl::StrCat(parent, "/", kPrefix, "XXXXXX");
      if (mkdtemp(path.data()) == nullptr) {
        absl::StrAppend(&why, why.empty() ? "" : "; ", parent, ": ", std::strerror(errno));
        break;
      }
      const int lock = Lock(path, LOCK_EX);
      if (lock >= 0) return std::unique_ptr<TlsFolder>(new TlsFolder(std::move(path), lock));
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no folder for the certificates that gRPC reads: ", why));
}

TlsFolder::~TlsFolder() {
  Remove(path_);
  close(lock_);
}

bool TlsFolder::in_memory() const {
  struct statfs info {};
  return fstatfs(lock_, &info) == 0 && (info.f_type == TMPFS_MAGIC || info.f_type == RAMFS_MAGIC);
}

std::string TlsFolder::SetPath(int64_t number) const { return absl::StrCat(path_, "/", number); }

absl::Status TlsFolder::Publish(const TlsSet& set) {
  const int64_t number = published_ + 1;
  const std::string path = SetPath(number);
  Remove(path);
  const int64_t second = std::max<int64_t>(written_s_ + 1, std::time(nullptr));
  absl::Status status = mkdir(path.c_str(), 0700) == 0 ? absl::OkStatus() : ErrnoError(path);
  if (status.ok()) status = WriteFile(path + "/cert.pem", set.cert, second);
  if (status.ok()) status = WriteFile(path + "/key.pem", set.key, second);
  if (status.ok() && !set.client_ca.empty()) {
    status = WriteFile(path + "/client_ca.pem", set.client_ca, second);
  }
  const std::string next = path_ + "/next";
  Remove(next);
  if (status.ok() && (symlink(std::to_string(number).c_str(), next.c_str()) != 0 ||
                      rename(next.c_str(), (path_ + "/current").c_str()) != 0)) {
    status = ErrnoError(next);
  }
  if (!status.ok()) {
    Remove(path);
    return status;
  }
  published_ = number;
  written_s_ = second;
  Remove(SetPath(number - 2));  // gRPC may be reading the one before this
  return absl::OkStatus();
}

}  // namespace sluice
