// Finds out who calls: the tenant of a bearer token or of a client certificate.
//
// Without --auth_tokens_file and --tls_client_ca everybody is the tenant "". If there is a client
// CA and no file, a certificate's subject is its tenant. If there is a file (server/auth_table.h),
// only its tokens and certificates are let in, and a token counts before a certificate.
#ifndef SLUICE_SERVER_AUTH_H_
#define SLUICE_SERVER_AUTH_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/clock.h"
#include "engine/stats.h"
#include "server/auth_table.h"
#include "server/core/mutex.h"
#include "server/core/tenant.h"
#include "server/failure_limit.h"
#include "server/file_watch.h"
#include "server/live_calls.h"
#include "server/poller.h"

namespace sluice {

struct AuthOptions {
  std::string tokens_file{};          // empty: none
  bool client_certificates = false;   // every connection has shown a valid one
  int32_t failures_per_minute = 60;   // of one address; 0: no bound
  bool finish_revoked_calls = false;  // calls of a tenant that is no longer let in may finish
};

// The credentials that a call brings.
struct Credentials {
  std::vector<absl::string_view> authorization{};  // every header of that name
  absl::string_view subject{};                     // of the client's certificate; empty: none
  absl::string_view peer{};                        // the address, without the port
};

struct AuthStats {
  Counter failures;         // calls that did not say who they are, or wrongly
  Counter limited;          // those that came after too many of them from one address
  Counter reloads;          // of the file, that succeeded
  Counter reload_failures;  // those that left the table as it was
  Counter revoked_calls;    // ended because a reload no longer lets their tenant in
};

class Authenticator {
 public:
  // Reads the file, and reads it again whenever it changes: a change counts once the file has stood
  // still for a second. INVALID_ARGUMENT when it cannot be read or has an error, which the message
  // names.
  static absl::StatusOr<std::unique_ptr<Authenticator>> Create(const AuthOptions& options,
                                                               const Clock* clock);

  // Any thread; never blocks. UNAUTHENTICATED, or RESOURCE_EXHAUSTED if that happened too often to
  // one address. Valid credentials are let in whatever else their address does.
  absl::StatusOr<TenantRef> TenantOf(const grpc::ServerContextBase& context) const;
  absl::StatusOr<TenantRef> Check(const Credentials& credentials) const;

  // Has the file read at once, changed or not. Any thread; does not wait.
  void Reload();
  // Ends the call with UNAUTHENTICATED when the file no longer lets its tenant in: the tenant is
  // gone, or has no token any more (no certificate, if the call came with one). `end` may run
  // before this returns. The returned place holds the entry; the Authenticator outlives it.
  LiveCalls::Place Watch(const TenantRef& tenant, LiveCalls::End end) const;
  // The status that those calls end with.
  static absl::Status Revoked();
  // Tenants that the file names; 0 without one.
  int64_t tenants() const;
  const AuthStats& stats() const { return stats_; }

 private:
  Authenticator(const AuthOptions& options, const Clock* clock);

  absl::StatusOr<AuthTable> ReadFile() const;
  absl::StatusOr<TenantRef> Find(const Credentials& credentials) const;
  std::shared_ptr<const AuthTable> table() const;
  void Look(bool poked);
  int64_t EndRevoked() const;

  const AuthOptions options_;
  const Clock* const clock_;
  const TenantRef anyone_;
  mutable FailureLimit limit_;
  mutable AuthStats stats_;
  mutable LiveCalls calls_;
  FileWatch watch_;

  mutable Mutex mutex_;
  std::shared_ptr<const AuthTable> table_ SLUICE_GUARDED_BY(mutex_);
  std::unique_ptr<Poller> poller_;  // last, for its thread uses the rest; null: no file
};

// "ipv4:10.0.0.1:4711" without the port. "ipv6:%5B::1%5D:4711" likewise.
absl::string_view PeerAddress(absl::string_view peer);

}  // namespace sluice

#endif  // SLUICE_SERVER_AUTH_H_
