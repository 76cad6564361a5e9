// The file system as the session store needs it: a seam, so that tests can make it full, broken or
// lose what was never synced.
#ifndef SLUICE_ENGINE_FILES_H_
#define SLUICE_ENGINE_FILES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace sluice {

// Two files that are there at the same time have different numbers.
struct FileStamp {
  uint64_t number = 0;
  int64_t time_us = 0;  // since the Unix epoch
  int64_t size = 0;
  bool is_file = true;  // false: a directory, or what else is no plain file

  bool operator==(const FileStamp&) const = default;
};

// Errors: NOT_FOUND, ALREADY_EXISTS, RESOURCE_EXHAUSTED (no space or quota left), INVALID_ARGUMENT
// (a name too long), UNAVAILABLE (anything else). Messages hold no path. Calls block; any thread.
class Files {
 public:
  // Held until destroyed, or the process ends.
  class Lock {
   public:
    virtual ~Lock() = default;
  };

  // Locks on single bytes of one file, which need not be there. The kernel drops them when the
  // object or its process goes. Locks of one object do not conflict with each other.
  class ByteLocks {
   public:
    enum class Mode : uint8_t { kNone, kShared, kExclusive };
    virtual ~ByteLocks() = default;
    // Takes or changes this object's lock on a byte, or with kNone gives it up; never waits.
    // ALREADY_EXISTS: another object's lock is in the way, and nothing has changed.
    virtual absl::Status Set(int64_t byte, Mode mode) = 0;
    // The lock of another object on one of `count` bytes; kNone: there is none.
    virtual absl::StatusOr<Mode> HeldByOthers(int64_t first, int64_t count) = 0;
  };

  virtual ~Files() = default;

  // OK when it is there already; its parent must be.
  virtual absl::Status MakeDir(const std::string& path) = 0;
  // Names in a directory, in any order, without "." and "..".
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& dir) = 0;
  virtual absl::StatusOr<int64_t> Size(const std::string& path) = 0;
  // Tells which file a name is, and when it was last written or touched.
  virtual absl::StatusOr<FileStamp> Stamp(const std::string& path) = 0;
  // Sets when a file was last written or touched.
  virtual absl::Status SetTime(const std::string& path, int64_t time_us) = 0;
  // Exactly `out.size()` bytes at `offset`; DATA_LOSS where the file ends before.
  virtual absl::Status ReadAt(const std::string& path, int64_t offset, absl::Span<char> out) = 0;
  // A new file of these pieces, one after another, on stable storage once it returns OK; its name
  // is so after SyncDir only. ALREADY_EXISTS. On an error a part of it may be left.
  virtual absl::Status WriteNew(const std::string& path,
                                absl::Span<const absl::string_view> pieces) = 0;
  // Makes the names in a directory as durable as the files.
  virtual absl::Status SyncDir(const std::string& dir) = 0;
  // A second name for a file. ALREADY_EXISTS when `to` is taken: of several who try, one succeeds.
  virtual absl::Status Link(const std::string& from, const std::string& to) = 0;
  // Renames a file or a directory; `to` must be free.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  // A file, or an empty directory.
  virtual absl::Status Remove(const std::string& path) = 0;
  // An advisory lock on a file, made when there is none. ALREADY_EXISTS while another holds it.
  virtual absl::StatusOr<std::unique_ptr<Lock>> TryLock(const std::string& path) = 0;
  // The byte locks of a file, made when there is none. Errors, those of the locks too, name the
  // kind of file system.
  virtual absl::StatusOr<std::unique_ptr<ByteLocks>> OpenLocks(const std::string& path) = 0;
};

// The real one. Lives as long as the process.
Files* PosixFiles();

}  // namespace sluice

#endif  // SLUICE_ENGINE_FILES_H_
