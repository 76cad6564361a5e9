#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/files.h"

namespace sluice {
namespace {

absl::Status Error(absl::string_view what, int error) {
  const std::string message = absl::StrCat(what, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EEXIST:
    case ENOTEMPTY:
      return absl::AlreadyExistsError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(message);
    case ENAMETOOLONG:
      return absl::InvalidArgumentError(message);
    default:
      return absl::UnavailableError(message);
  }
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) {
    do {
      fd_ = open(path.c_str(), flags | O_CLOEXEC, 0600);
    } while (fd_ < 0 && errno == EINTR);
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int fd() const { return fd_; }

 private:
  int fd_;
};

absl::Status WriteAll(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Error("write", errno);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

class PosixLock : public Files::Lock {
 public:
  explicit PosixLock(std::unique_ptr<Descriptor> descriptor) : descriptor_(std::move(descriptor)) {}

 private:
  std::unique_ptr<Descriptor> descriptor_;
};

// Kinds of file system whose locks are known to depend on how they are mounted, and the usual ones.
std::string FileSystemOf(int fd) {
  struct statfs info {};
  if (fstatfs(fd, &info) != 0) return "unknown";
  switch (static_cast<uint32_t>(info.f_type)) {
    case 0x6969:
      return "nfs";
    case 0xFF534D42:
    case 0xFE534D42:
      return "smb";
    case 0x65735546:
      return "fuse";
    case 0x01021997:
      return "9p";
    case 0x00C36400:
      return "ceph";
    case 0x0BD00BD0:
      return "lustre";
    case 0x794C7630:
      return "overlay";
    case 0x01021994:
      return "tmpfs";
    case 0xEF53:
      return "ext";
    case 0x58465342:
      return "xfs";
    case 0x9123683E:
      return "btrfs";
    default:
      return absl::StrCat("type 0x", absl::Hex(static_cast<uint32_t>(info.f_type)));
  }
}

// Locks of an open file description: they belong to it and not to the process, so that two of these
// objects exclude each other in one process too, and they go when its last descriptor is closed.
class PosixByteLocks : public Files::ByteLocks {
 public:
  explicit PosixByteLocks(std::unique_ptr<Descriptor> file)
      : file_(std::move(file)), file_system_(FileSystemOf(file_->fd())) {}

  absl::Status Set(int64_t byte, Mode mode) override {
    struct flock lock = Range(byte, 1, TypeOf(mode));
    if (fcntl(file_->fd(), F_OFD_SETLK, &lock) == 0) return absl::OkStatus();
    if (errno == EAGAIN || errno == EACCES) {
      return absl::AlreadyExistsError("lock: held by another");
    }
    return LockError(errno);
  }

  absl::StatusOr<Mode> HeldByOthers(int64_t first, int64_t count) override {
    struct flock lock = Range(first, count, F_WRLCK);
    if (fcntl(file_->fd(), F_OFD_GETLK, &lock) != 0) return LockError(errno);
    if (lock.l_type == F_UNLCK) return Mode::kNone;
    return lock.l_type == F_WRLCK ? Mode::kExclusive : Mode::kShared;
  }

 private:
  static int16_t TypeOf(Mode mode) {
    if (mode == Mode::kNone) return F_UNLCK;
    return mode == Mode::kShared ? F_RDLCK : F_WRLCK;
  }
  static struct flock Range(int64_t first, int64_t count, int16_t type) {
    struct flock lock {};  // l_pid must be 0
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = first;
    lock.l_len = count;
    return lock;
  }
  absl::Status LockError(int error) const {
    return Error(absl::StrCat("lock on a file system of kind ", file_system_), error);
  }

  std::unique_ptr<Descriptor> file_;
  const std::string file_system_;
};

class PosixFilesImpl : public Files {
 public:
  absl::Status MakeDir(const std::string& path) override {
    if (mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
    if (errno != EEXIST) return Error("mkdir", errno);
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) return Error("stat", errno);
    return S_ISDIR(info.st_mode) ? absl::OkStatus() : Error("mkdir", ENOTDIR);
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& dir) override {
    DIR* const handle = opendir(dir.c_str());
    if (handle == nullptr) return Error("opendir", errno);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(handle)) {
      const absl::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    const int error = errno;
    closedir(handle);
    if (error != 0) return Error("readdir", error);
    return names;
  }

  absl::StatusOr<int64_t> Size(const std::string& path) override {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) return Error("stat", errno);
    if (!S_ISREG(info.st_mode)) return absl::NotFoundError("stat: not a regular file");
    return static_cast<int64_t>(info.st_size);
  }

  absl::StatusOr<FileStamp> Stamp(const std::string& path) override {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) return Error("stat", errno);
    return FileStamp{static_cast<uint64_t>(info.st_ino),
                     int64_t{info.st_mtim.tv_sec} * 1000000 + info.st_mtim.tv_nsec / 1000,
                     static_cast<int64_t>(info.st_size), S_ISREG(info.st_mode)};
  }

  absl::Status SetTime(const std::string& path, int64_t time_us) override {
    struct timespec times[2] = {};
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_sec = time_us / 1000000;
    times[1].tv_nsec = time_us % 1000000 * 1000;
    return utimensat(AT_FDCWD, path.c_str(), times, 0) == 0 ? absl::OkStatus()
                                                            : Error("utimensat", errno);
  }

  absl::Status ReadAt(const std::string& path, int64_t offset, absl::Span<char> out) override {
    const Descriptor file(path, O_RDONLY);
    if (file.fd() < 0) return Error("open", errno);
    while (!out.empty()) {
      const ssize_t got = pread(file.fd(), out.data(), out.size(), offset);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return Error("read", errno);
      if (got == 0) return absl::DataLossError("read: the file is too short");
      out.remove_prefix(static_cast<size_t>(got));
      offset += got;
    }
    return absl::OkStatus();
  }

  absl::Status WriteNew(const std::string& path,
                        absl::Span<const absl::string_view> pieces) override {
    const Descriptor file(path, O_WRONLY | O_CREAT | O_EXCL);
    if (file.fd() < 0) return Error("create", errno);
    for (absl::string_view piece : pieces) {
      const absl::Status written = WriteAll(file.fd(), piece);
      if (!written.ok()) return written;
    }
    return fsync(file.fd()) == 0 ? absl::OkStatus() : Error("fsync", errno);
  }

  absl::Status SyncDir(const std::string& dir) override {
    const Descriptor handle(dir, O_RDONLY | O_DIRECTORY);
    if (handle.fd() < 0) return Error("open", errno);
    return fsync(handle.fd()) == 0 ? absl::OkStatus() : Error("fsync", errno);
  }

  absl::Status Link(const std::string& from, const std::string& to) override {
    return link(from.c_str(), to.c_str()) == 0 ? absl::OkStatus() : Error("link", errno);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    return renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0
               ? absl::OkStatus()
               : Error("rename", errno);
  }

  absl::Status Remove(const std::string& path) override {
    return remove(path.c_str()) == 0 ? absl::OkStatus() : Error("remove", errno);
  }

  absl::StatusOr<std::unique_ptr<Lock>> TryLock(const std::string& path) override {
    auto file = std::make_unique<Descriptor>(path, O_RDWR | O_CREAT);
    if (file->fd() < 0) return Error("open", errno);
    if (flock(file->fd(), LOCK_EX | LOCK_NB) != 0) {
      return errno == EWOULDBLOCK ? absl::AlreadyExistsError("lock: held by another")
                                  : Error("lock", errno);
    }
    // Whoever clears up after the dead may have held it for a moment and removed its name.
    struct stat info {};
    if (fstat(file->fd(), &info) != 0) return Error("stat", errno);
    if (info.st_nlink == 0) return absl::AlreadyExistsError("lock: its file was removed");
    return std::unique_ptr<Lock>(std::make_unique<PosixLock>(std::move(file)));
  }

  absl::StatusOr<std::unique_ptr<ByteLocks>> OpenLocks(const std::string& path) override {
    auto file = std::make_unique<Descriptor>(path, O_RDWR | O_CREAT);
    if (file->fd() < 0) return Error("open", errno);
    return std::unique_ptr<ByteLocks>(std::make_unique<PosixByteLocks>(std::move(file)));
  }
};

}  // namespace

Files* PosixFiles() {
  static PosixFilesImpl* const files = new PosixFilesImpl;
  return files;
}

}  // namespace sluice
