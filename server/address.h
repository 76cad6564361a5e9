// HOST:PORT, as flags give it.
#ifndef SLUICE_SERVER_ADDRESS_H_
#define SLUICE_SERVER_ADDRESS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

struct Address {
  std::string host;  // without the brackets of an IPv6 address
  int port = 0;
};

// "127.0.0.1:50051", "localhost:0", "[::1]:50051". The host must be there.
absl::StatusOr<Address> ParseAddress(absl::string_view text);
std::string FormatAddress(const Address& address);

// Whether any of what the host resolves to is more than this machine's loopback.
bool ReachableByOthers(const Address& address);

// Why nobody can listen there, in the system's words: "127.0.0.1:50051: Address already in use".
// For after a library failed to and did not say. OK: it would work now.
absl::Status CheckListen(const Address& address);

}  // namespace sluice

#endif  // SLUICE_SERVER_ADDRESS_H_
