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

// True if the host resolves to any address other than this machine's loopback.
bool ReachableByOthers(const Address& address);

// Says in the system's words why nobody can listen there: "127.0.0.1:50051: Address already in
// use". Use it after a library failed to listen and did not say why. OK means that it would work
// now.
absl::Status CheckListen(const Address& address);

}  // namespace sluice

#endif  // SLUICE_SERVER_ADDRESS_H_
