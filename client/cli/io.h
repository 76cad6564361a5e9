// The streams that a command reads from and writes to: the process's own, or a test's.
#ifndef SLUICE_CLIENT_CLI_IO_H_
#define SLUICE_CLIENT_CLI_IO_H_

#include <functional>
#include <istream>
#include <ostream>
#include <string>
#include <vector>

#include "client/cancellation.h"

namespace sluice {

// Exit codes of `sluice`. A cancelled command exits with 128 + the signal (main.cc).
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;  // the call failed, or the daemon is not serving
inline constexpr int kExitUsage = 2;   // nothing was sent

struct Io {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  std::function<const char*(const char* name)> environment =
      nullptr;                              // getenv; null for an unset name
  std::vector<std::string> variables = {};  // the names in the environment
  Cancellation* cancellation = nullptr;
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_IO_H_
