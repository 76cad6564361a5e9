// Certificate chain, private key and client authorities as one set: read and checked together.
#ifndef SLUICE_SERVER_TLS_SET_H_
#define SLUICE_SERVER_TLS_SET_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice {

// Paths of --tls_cert, --tls_key and --tls_client_ca.
struct TlsFiles {
  std::string cert;       // PEM, the server's certificate first; empty: no TLS
  std::string key;        // PEM
  std::string client_ca;  // PEM; empty: clients show no certificate
};

// A set that passed the checks, written anew as PEM: gRPC reads exactly what was checked.
struct TlsSet {
  std::string cert;
  std::string key;        // not encrypted
  std::string client_ca;  // empty: clients show no certificate
  absl::Time expires;     // of the server's certificate
};

// Checks that each file is there and whole, that the key is the certificate's and strong enough for
// OpenSSL, and that the certificate and at least one authority are valid at `now`.
// INVALID_ARGUMENT "--FLAG=PATH: why".
absl::StatusOr<TlsSet> ReadTlsSet(const TlsFiles& files, absl::Time now);

}  // namespace sluice

#endif  // SLUICE_SERVER_TLS_SET_H_
