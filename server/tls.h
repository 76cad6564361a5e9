// TLS of the gRPC port: the credentials that --tls_cert, --tls_key and --tls_client_ca ask for, and
// their replacement while the daemon runs.
#ifndef SLUICE_SERVER_TLS_H_
#define SLUICE_SERVER_TLS_H_

#include <grpcpp/security/server_credentials.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/stats.h"
#include "server/file_watch.h"
#include "server/poller.h"
#include "server/tls_folder.h"
#include "server/tls_set.h"

namespace sluice {

struct TlsStats {
  Counter reloads;          // changes of the files that serve now
  Counter reload_failures;  // changes that left the certificates as they were
  Gauge expiry_unix;        // when the certificate that serves expires, in seconds
};

// Flags that do not go together: INVALID_ARGUMENT.
absl::Status CheckTlsFlags(const TlsFiles& files);

// Looks at the files every second. A change that has stood still for a second and makes a set that
// passes (server/tls_set.h) serves the next handshakes, at most 4 s after it was made; any other is
// logged and counted once, and the set before goes on. Connections that are open stay as they are,
// also those whose certificate a new --tls_client_ca would refuse.
class ServerTls {
 public:
  // `files` has a certificate and a key. INVALID_ARGUMENT naming the flag, its file and what is
  // wrong with it.
  static absl::StatusOr<std::unique_ptr<ServerTls>> Create(const TlsFiles& files);

  // The gRPC server that uses them goes before this object does.
  const std::shared_ptr<grpc::ServerCredentials>& credentials() const { return credentials_; }
  // Has the files read at once, changed or not. Any thread; does not wait.
  void Reload() { poller_->Poke(); }
  const TlsStats& stats() const { return stats_; }

 private:
  ServerTls(const TlsFiles& files, std::unique_ptr<TlsFolder> folder);

  void Look(bool poked);
  absl::Status Publish(const absl::StatusOr<TlsSet>& set);

  const TlsFiles files_;
  const std::unique_ptr<TlsFolder> folder_;
  FileWatch watch_;
  std::string refused_;  // why the files' last change does not serve; empty: it does
  TlsStats stats_;
  std::shared_ptr<grpc::ServerCredentials> credentials_;
  std::unique_ptr<Poller> poller_;  // last: its thread uses the rest
};

}  // namespace sluice

#endif  // SLUICE_SERVER_TLS_H_
