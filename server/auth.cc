#include "server/auth.h"

#include <fcntl.h>
#include <grpc/grpc_security_constants.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/log.h"
#include "server/status.h"

namespace sluice {
namespace {

constexpr absl::Duration kPollInterval = absl::Seconds(1);
constexpr absl::string_view kScheme = "Bearer ";

absl::string_view View(grpc::string_ref text) { return {text.data(), text.size()}; }

absl::StatusOr<absl::string_view> TokenOf(absl::string_view header) {
  if (!absl::ConsumePrefix(&header, kScheme) || header.empty() || header.size() > kMaxTokenBytes) {
    return absl::UnauthenticatedError("the metadata 'authorization' must be 'Bearer TOKEN'");
  }
  return header;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Authenticator>> Authenticator::Create(const AuthOptions& options,
                                                                     const Clock* clock) {
  std::unique_ptr<Authenticator> auth(new Authenticator(options, clock));
  if (options.tokens_file.empty()) return auth;
  auth->loaded_ = auth->seen_ = VersionOf(options.tokens_file);
  absl::StatusOr<AuthTable> table = auth->ReadFile();
  if (!table.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--auth_tokens_file: ", table.status().message()));
  }
  {
    MutexLock lock(&auth->mutex_);
    auth->table_ = std::make_shared<const AuthTable>(*std::move(table));
  }
  auth->watcher_ = std::thread([raw = auth.get()] { raw->Watch(); });
  return auth;
}

Authenticator::Authenticator(const AuthOptions& options, const Clock* clock)
    : options_(options),
      clock_(clock),
      anyone_(std::make_shared<const Tenant>()),
      limit_(options.failures_per_minute) {}

Authenticator::~Authenticator() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    bell_.NotifyOne();
  }
  if (watcher_.joinable()) watcher_.join();
}

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
  const absl::Duration now = clock_->Now();
  const absl::Duration wait = limit_.Wait(credentials.peer, now);
  if (wait > absl::ZeroDuration()) {
    stats_.limited.Add();
    return WithRetry(
        absl::ResourceExhaustedError("too many calls from this address were unauthenticated"),
        wait);
  }
  absl::StatusOr<TenantRef> tenant = Find(credentials);
  if (!tenant.ok()) {
    stats_.failures.Add();
    limit_.Fail(credentials.peer, now);
  }
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
    return absl::UnauthenticatedError("the metadata 'authorization' is there more than once");
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
    if (tenant == nullptr) return absl::UnauthenticatedError("the certificate is no tenant's");
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

Authenticator::FileVersion Authenticator::VersionOf(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return {};
  return {info.st_dev, info.st_ino, info.st_size,
          int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
}

absl::StatusOr<AuthTable> Authenticator::ReadFile() const {
  const std::string& path = options_.tokens_file;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  std::string text;
  ssize_t got = -1;
  if (fd >= 0) {
    char buffer[65536];
    while (text.size() <= kMaxAuthFileBytes && (got = read(fd, buffer, sizeof(buffer))) > 0) {
      text.append(buffer, static_cast<size_t>(got));
    }
  }
  const int why = errno;
  if (fd >= 0) close(fd);
  if (got < 0) return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::strerror(why)));
  return AuthTable::Parse(text, path);
}

void Authenticator::Poll() {
  const FileVersion version = VersionOf(options_.tokens_file);
  const bool stands_still = version == std::exchange(seen_, version);
  if (stands_still && version != loaded_) Take(version);
}

void Authenticator::Reload() {
  MutexLock lock(&mutex_);
  reload_ = true;
  bell_.NotifyOne();
}

void Authenticator::Take(const FileVersion& version) {
  loaded_ = seen_ = version;
  absl::StatusOr<AuthTable> table = ReadFile();
  if (!table.ok()) {
    stats_.reload_failures.Add();
    Log(LogLevel::kError, "auth_reload",
        {{"message", table.status().message()}, {"kept", "the tenants read before"}});
    return;
  }
  stats_.reloads.Add();
  Log(LogLevel::kInfo, "auth_reload",
      {{"tenants", static_cast<int64_t>(table->tenants().size())},
       {"tokens", static_cast<int64_t>(table->tokens())}});
  MutexLock lock(&mutex_);
  table_ = std::make_shared<const AuthTable>(*std::move(table));
}

void Authenticator::Watch() {
  while (true) {
    bool now;
    {
      MutexLock lock(&mutex_);
      if (!stop_ && !reload_) bell_.WaitFor(&mutex_, kPollInterval);
      if (stop_) return;
      now = std::exchange(reload_, false);
    }
    if (now) {
      Take(VersionOf(options_.tokens_file));
    } else {
      Poll();
    }
  }
}

absl::string_view PeerAddress(absl::string_view peer) {
  const size_t colon = peer.rfind(':');
  return colon == absl::string_view::npos ? peer : peer.substr(0, colon);
}

}  // namespace sluice
