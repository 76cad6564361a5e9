// A sluiced of this process's own, for as long as a command runs.
#ifndef SLUICE_CLIENT_CLI_PRIVATE_DAEMON_H_
#define SLUICE_CLIENT_CLI_PRIVATE_DAEMON_H_

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cancellation.h"

namespace sluice {

class PrivateDaemon {
 public:
  // Runs `program` on free ports of the loopback interface, and waits until it serves. It writes
  // its warnings and errors to this process's stderr. FAILED_PRECONDITION if it ends before it
  // serves, CANCELLED if `cancellation` (may be null) says so first. The calling thread must
  // outlive the daemon, which the kernel ends when that thread does.
  static absl::StatusOr<std::unique_ptr<PrivateDaemon>> Start(const std::string& program,
                                                              const std::string& model,
                                                              const std::vector<std::string>& flags,
                                                              Cancellation* cancellation);
  // Has it drain, and waits for its end.
  ~PrivateDaemon();
  PrivateDaemon(const PrivateDaemon&) = delete;
  PrivateDaemon& operator=(const PrivateDaemon&) = delete;

  const std::string& address() const { return address_; }
  // The daemon's own line: "MODEL on DEVICE at HOST:PORT, ...".
  const std::string& serving() const { return serving_; }

 private:
  explicit PrivateDaemon(pid_t pid) : pid_(pid) {}
  // Its exit code; 128 + the signal that ended it.
  int Wait();

  pid_t pid_;  // -1 once it has been waited for
  std::string address_;
  std::string serving_;
};

// The sluiced that lies beside this program, or else in PATH. NOT_FOUND names both places.
absl::StatusOr<std::string> FindSluiced(
    const std::function<const char*(const char* name)>& environment);

// The bundled model as it is installed with this program, or as it lies in the source tree that
// this program was built in. NOT_FOUND if it is in neither place.
absl::StatusOr<std::string> FindBundledModel();

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_PRIVATE_DAEMON_H_
