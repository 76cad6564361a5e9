// Shows the daemon who a client is: TLS, with or without a certificate of its own, and a bearer
// token.
#ifndef SLUICE_CLIENT_CREDENTIALS_H_
#define SLUICE_CLIENT_CREDENTIALS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/client_interceptor.h"

namespace sluice {

struct TlsFiles {
  std::string ca;    // PEM of the authorities that are trusted; empty: the system's
  std::string cert;  // PEM, the client's own, with its key; empty: none
  std::string key;   // PEM
};

// INVALID_ARGUMENT naming the file that cannot be read.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> TlsCredentials(const TlsFiles& files);

// Sends `authorization: Bearer TOKEN` with every call of a channel, TLS or not.
std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface> SendToken(
    const std::string& token);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CREDENTIALS_H_
