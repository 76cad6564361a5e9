#include "server/tls.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "server/log.h"

namespace sluice {
namespace {

// Interval at which gRPC looks at the folder; this is the shortest that it takes.
constexpr unsigned kRefreshSeconds = 1;

std::vector<std::string> Paths(const TlsFiles& files) {
  std::vector<std::string> paths = {files.cert, files.key};
  if (!files.client_ca.empty()) paths.push_back(files.client_ca);
  return paths;
}

std::shared_ptr<grpc::ServerCredentials> MakeCredentials(const TlsFolder& folder,
                                                         bool client_certificates) {
  using Provider = grpc::experimental::FileWatcherCertificateProvider;
  grpc::experimental::TlsServerCredentialsOptions options(std::make_shared<Provider>(
      folder.key(), folder.cert(), client_certificates ? folder.client_ca() : "", kRefreshSeconds));
  options.watch_identity_key_cert_pairs();
  if (client_certificates) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace

absl::Status CheckTlsFlags(const TlsFiles& files) {
  if (files.cert.empty() != files.key.empty()) {
    return absl::InvalidArgumentError("--tls_cert and --tls_key are given together or not at all");
  }
  if (files.cert.empty() && !files.client_ca.empty()) {
    return absl::InvalidArgumentError("--tls_client_ca needs --tls_cert and --tls_key");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ServerTls>> ServerTls::Create(const TlsFiles& files) {
  absl::StatusOr<std::unique_ptr<TlsFolder>> folder = TlsFolder::Create();
  if (!folder.ok()) return folder.status();
  if (!(*folder)->in_memory()) {
    Log(LogLevel::kWarn, "tls_folder",
        {{"path", (*folder)->path()},
         {"message", "copies of the private key lie on a disk: /dev/shm cannot be written to"}});
  }
  std::unique_ptr<ServerTls> tls(new ServerTls(files, *std::move(folder)));
  const absl::Status status = tls->Publish(ReadTlsSet(files, absl::Now()));
  if (!status.ok()) return status;
  tls->credentials_ = MakeCredentials(*tls->folder_, !files.client_ca.empty());
  tls->poller_ = std::make_unique<Poller>([raw = tls.get()](bool poked) { raw->Look(poked); });
  return tls;
}

ServerTls::ServerTls(const TlsFiles& files, std::unique_ptr<TlsFolder> folder)
    : files_(files), folder_(std::move(folder)), watch_(Paths(files)) {}

absl::Status ServerTls::Publish(const absl::StatusOr<TlsSet>& set) {
  if (!set.ok()) return set.status();
  absl::Status status = folder_->Publish(*set);
  if (status.ok()) stats_.expiry_unix.Set(absl::ToUnixSeconds(set->expires));
  return status;
}

void ServerTls::Look(bool poked) {
  FileState state = watch_.Look();
  if (poked) {
    watch_.Take();
    state = FileState::kChanged;
  }
  // A set that was refused is tried again while it stands still: its dates may have come, or its
  // mode may have changed, which the watch does not see.
  const bool again = state == FileState::kUnchanged && !refused_.empty();
  if (state != FileState::kChanged && !again) return;
  const absl::StatusOr<TlsSet> set = ReadTlsSet(files_, absl::Now());
  if (!watch_.AsSeen()) return;  // replaced while it was read: a later look takes it
  const absl::Status status = Publish(set);
  const std::string before = std::exchange(refused_, std::string(status.message()));
  if (status.ok()) {
    stats_.reloads.Add();
    Log(LogLevel::kInfo, "tls_reload",
        {{"expires", absl::FormatTime(set->expires, absl::UTCTimeZone())}});
  } else if (!again || refused_ != before) {
    stats_.reload_failures.Add();
    Log(LogLevel::kError, "tls_reload",
        {{"message", refused_}, {"kept", "the certificates read before"}});
  }
}

}  // namespace sluice
