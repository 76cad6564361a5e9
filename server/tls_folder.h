// The folder of ours that gRPC reads certificates from: only sets that passed are ever in it.
//
// gRPC 1.51 takes changing certificates from files alone, and reads them one after another. Here a
// whole set takes the place of another by one rename of a symbolic link, and the times of its files
// are of another second than those of the set before: gRPC compares these before and after it
// reads, so it never pairs the key of one set with the certificate of another.
#ifndef SLUICE_SERVER_TLS_FOLDER_H_
#define SLUICE_SERVER_TLS_FOLDER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/tls_set.h"

namespace sluice {

class TlsFolder {
 public:
  // /dev/shm, then $TMPDIR or /tmp where that cannot be written to.
  static std::vector<std::string> DefaultParents();
  // A new folder, mode 0700, in the first of `parents` that takes one; what daemons of the same
  // user left there when they were killed goes. INVALID_ARGUMENT when none of them does.
  static absl::StatusOr<std::unique_ptr<TlsFolder>> Create(
      const std::vector<std::string>& parents = DefaultParents());
  // Removes the folder.
  ~TlsFolder();
  TlsFolder(const TlsFolder&) = delete;
  TlsFolder& operator=(const TlsFolder&) = delete;

  // From now on the three paths lead to `set`. On an error they lead to the set before. One thread
  // at a time.
  absl::Status Publish(const TlsSet& set);

  std::string cert() const { return path_ + "/current/cert.pem"; }
  std::string key() const { return path_ + "/current/key.pem"; }
  std::string client_ca() const { return path_ + "/current/client_ca.pem"; }
  const std::string& path() const { return path_; }
  // True if the file system lies in memory, so that no key outlives a loss of power.
  bool in_memory() const;

 private:
  TlsFolder(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}

  std::string SetPath(int64_t number) const;

  const std::string path_;
  const int lock_;  // the folder itself, with a lock that the kernel drops at a death
  int64_t published_ = 0;
  int64_t written_s_ = 0;  // the second that the newest set's files carry
};

}  // namespace sluice

#endif  // SLUICE_SERVER_TLS_FOLDER_H_
