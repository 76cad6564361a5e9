// TLS of the gRPC port: the credentials that --tls_cert, --tls_key and --tls_client_ca ask for.
#ifndef SLUICE_SERVER_TLS_H_
#define SLUICE_SERVER_TLS_H_

#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace sluice {

struct TlsFiles {
  std::string cert;       // PEM, the server's first; empty: no TLS
  std::string key;        // PEM
  std::string client_ca;  // PEM; empty: clients show no certificate
};

// The files are read again every few seconds, so a new certificate serves the next handshake; open
// connections stay. While certificate and key do not match no handshake succeeds: replace them
// together. INVALID_ARGUMENT naming the flag and what is wrong with its file.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const TlsFiles& files);

}  // namespace sluice

#endif  // SLUICE_SERVER_TLS_H_
