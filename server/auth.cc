#include "server/auth.h"

#include <grpc/grpc_security_constants.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/log.h"
#include "server/status.h"

namespace sluice {
namespace {

constexpr absl::string_view kScheme = "Bearer ";  // in any case: RFC 9110, 11.1

absl::string_view View(grpc::string_ref text) { return {text.data(), text.size()}; }

absl::StatusOr<absl::string_view> TokenOf(absl::string_view header) {
  const bool bearer = absl::StartsWithIgnoreCase(header, kScheme);
  if (bearer) header.remove_prefix(kScheme.size());
  if (!bearer || header.empty() || header.size() > kMaxTokenBytes) {
    return absl::UnauthenticatedError("the metadata 'authorization' must be 'Bearer TOKEN'");
  }
  return header;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Authenticator>> Authenticator::Create(const AuthOptions& options,
                                                                     const Clock* clock) {
  std::unique_ptr<Authenticator> auth(new Authenticator(options, clock));
  if (options.tokens_file.empty()) return auth;
  absl::StatusOr<AuthTable> table = auth->ReadFile();
  if (!table.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--auth_tokens_file: ", table.status().message()));
  }
  {
    MutexLock lock(&auth->mutex_);
    auth->table_ = std::make_shared<const AuthTable>(*std::move(table));
  }
  auth->poller_ = std::make_unique<Poller>([raw = auth.get()](bool poked) { raw->Look(poked); });
  return auth;
}

Authenticator::Authenticator(const AuthOptions& options, const Clock* clock)
    : options_(options),
      clock_(clock),
      anyone_(std::make_shared<const Tenant>()),
      limit_(options.failures_per_minute),
      watch_({options.tokens_file}) {}

absl::StatusOr<TenantRef> Authenticator::TenantOf(const grpc::ServerContextBase& context) const {
  if (options_.tokens_file.empty() && !options_.client_certificates) return anyone_;
  Credentials credentials;
  const auto headers = context.client_metadata().equal_range("authorization");
  for (auto it = headers.first; it != headers.second; ++it) {
    credentials.authorization.push_back(View(it->second));
  }
  std::vector<grpc::string_ref> subject;
  if (options_.client_certificates) {
    subject = context.auth_context()->FindPropertyValues(GRPC_X509_SUBJECT_PROPERTY_NAME);
    if (!subject.empty()) credentials.subject = View(subject[0]);
  }
  const std::string peer = context.peer();
  credentials.peer = PeerAddress(peer);
  return Check(credentials);
}

absl::StatusOr<TenantRef> Authenticator::Check(const Credentials& credentials) const {
  absl::StatusOr<TenantRef> tenant = Find(credentials);
  if (tenant.ok()) return tenant;
  const absl::Duration now = clock_->Now();
  const absl::Duration wait = limit_.Wait(credentials.peer, now);
  if (wait > absl::ZeroDuration()) {
    stats_.limited.Add();
    return WithRetry(
        absl::ResourceExhaustedError("too many calls from this address were unauthenticated"),
        wait);
  }
  stats_.failures.Add();
  limit_.Fail(credentials.peer, now);
  return tenant;
}

absl::StatusOr<TenantRef> Authenticator::Find(const Credentials& credentials) const {
  const std::shared_ptr<const AuthTable> table = this->table();
  if (table == nullptr && !options_.client_certificates) return anyone_;
  if (table == nullptr) {
    if (credentials.subject.empty())
      return absl::UnauthenticatedError("the certificate has no subject");
    return std::make_shared<const Tenant>(Tenant{std::string(credentials.subject), {}});
  }
  if (credentials.authorization.size() > 1) {
    return absl::UnauthenticatedError("the metadata 'authorization' appears more than once");
  }
  TenantRef tenant;
  if (credentials.authorization.size() == 1) {
    const absl::StatusOr<absl::string_view> token = TokenOf(credentials.authorization[0]);
    if (!token.ok()) return token.status();
    tenant = table->FindToken(*token);
    if (tenant == nullptr) return absl::UnauthenticatedError("the token is not valid");
  } else {
    tenant = table->FindSubject(credentials.subject);
    if (tenant == nullptr && credentials.subject.empty()) {
      return absl::UnauthenticatedError(
          "this daemon wants the metadata 'authorization: Bearer TOKEN'");
    }
    if (tenant == nullptr)
      return absl::UnauthenticatedError("the certificate belongs to no tenant");
  }
  return tenant;
}

int64_t Authenticator::tenants() const {
  const std::shared_ptr<const AuthTable> table = this->table();
  return table == nullptr ? 0 : static_cast<int64_t>(table->tenants().size());
}

std::shared_ptr<const AuthTable> Authenticator::table() const {
  MutexLock lock(&mutex_);
  return table_;
}

// ---- The file ----

void Authenticator::Reload() {
  if (poller_ != nullptr) poller_->Poke();
}

absl::StatusOr<AuthTable> Authenticator::ReadFile() const {
  const absl::StatusOr<std::string> text = ReadSmallFile(options_.tokens_file, kMaxAuthFileBytes);
  if (!text.ok()) return text.status();
  return AuthTable::Parse(*text, options_.tokens_file);
}

void Authenticator::Look(bool poked) {
  if (watch_.Look() != FileState::kChanged && !poked) return;
  if (poked) watch_.Take();
  absl::StatusOr<AuthTable> table = ReadFile();
  if (!watch_.AsSeen()) return;  // replaced while it was read: a later look takes it
  if (!table.ok()) {
    stats_.reload_failures.Add();
    Log(LogLevel::kError, "auth_reload",
        {{"message", table.status().message()}, {"kept", "the tenants read before"}});
    return;
  }
  const auto tenants = static_cast<int64_t>(table->tenants().size());
  const auto tokens = static_cast<int64_t>(table->tokens());
  {
    MutexLock lock(&mutex_);
    table_ = std::make_shared<const AuthTable>(*std::move(table));
  }
  const int64_t ended = EndRevoked();
  stats_.reloads.Add();
  Log(LogLevel::kInfo, "auth_reload",
      {{"tenants", tenants}, {"tokens", tokens}, {"ended_calls", ended}});
}

// ---- Calls of those who are no longer let in ----

absl::Status Authenticator::Revoked() {
  return absl::UnauthenticatedError("the tenant is no longer let in: its last credential is gone");
}

LiveCalls::Place Authenticator::Watch(const TenantRef& tenant, LiveCalls::End end) const {
  if (options_.tokens_file.empty() || options_.finish_revoked_calls) return {};
  LiveCalls::Place place = calls_.Add(tenant, end);
  // A reload since the call showed its credentials may have missed this call.
  if (!table()->Admits(*tenant)) {
    stats_.revoked_calls.Add();
    end(Revoked());
  }
  return place;
}

int64_t Authenticator::EndRevoked() const {
  const std::shared_ptr<const AuthTable> table = this->table();
  const int64_t ended =
      calls_.EndUnless([&](const Tenant& tenant) { return table->Admits(tenant); }, Revoked());
  stats_.revoked_calls.Add(static_cast<uint64_t>(ended));
  return ended;
}

absl::string_view PeerAddress(absl::string_view peer) {
  const size_t colon = peer.rfind(':');
  return colon == absl::string_view::npos ? peer : peer.substr(0, colon);
}

}  // namespace sluice
