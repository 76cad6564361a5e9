#include "server/listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace sluice {
namespace {

constexpr int kBacklog = 1024;
// Descriptors that connections leave to everything else: files, event queues, the admin port.
constexpr int64_t kReservedFiles = 64;
// When there is no descriptor even to close a connection with: somebody else must give one back.
constexpr int kNoFilesPollMs = 10;

// TCP_USER_TIMEOUT of a socket, in milliseconds; 0: the system's own.
unsigned UserTimeout(absl::Duration lost_after) {
  if (lost_after == absl::InfiniteDuration()) return 0;
  return static_cast<unsigned>(
      std::clamp<int64_t>(absl::ToInt64Milliseconds(lost_after), 1, INT_MAX));
}

int OpenReserve() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

int64_t FileLimit() {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<int64_t>(limit.rlim_cur) : 1024;
}

std::optional<uint64_t> CookieOf(int fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) return std::nullopt;
  return cookie;
}

std::string PeerOf(const sockaddr_storage& address) {
  const auto bytes = [](const auto& field) {
    return std::string(reinterpret_cast<const char*>(&field), sizeof(field));
  };
  if (address.ss_family == AF_INET) {
    return bytes(reinterpret_cast<const sockaddr_in&>(address).sin_addr);
  }
  if (address.ss_family == AF_INET6) {
    return bytes(reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
  }
  return "";
}

absl::StatusOr<int> OpenSocket(const Address& address) {
  const auto error = [&](absl::string_view why) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot listen on ", FormatAddress(address), ": ", why));
  };
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int rc =
      getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (rc != 0) return error(gai_strerror(rc));
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  absl::StatusOr<int> result = fd;
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, kBacklog) != 0) {
    result = error(std::strerror(errno));
    if (fd >= 0) close(fd);
  }
  freeaddrinfo(found);
  return result;
}

int BoundPort(int fd) {
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  SLUICE_CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) == 0);
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                           : reinterpret_cast<sockaddr_in&>(bound).sin_port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Bind(const Address& address,
                                                         const ListenerOptions& options) {
  const absl::StatusOr<int> fd = OpenSocket(address);
  if (!fd.ok()) return fd.status();
  ListenerOptions bounded = options;
  const int64_t files = std::max<int64_t>(FileLimit() - kReservedFiles, 8);
  bounded.max_connections = static_cast<int32_t>(std::min<int64_t>(options.max_connections, files));
  const int wake_fd = eventfd(0, EFD_CLOEXEC);
  if (wake_fd < 0) {
    close(*fd);
    return absl::FailedPreconditionError(absl::StrCat("eventfd: ", std::strerror(errno)));
  }
  return std::unique_ptr<Listener>(
      new Listener(*fd, wake_fd, {address.host, BoundPort(*fd)}, bounded));
}

Listener::Listener(int listen_fd, int wake_fd, const Address& address,
                   const ListenerOptions& options)
    : listen_fd_(listen_fd),
      wake_fd_(wake_fd),
      reserve_fd_(OpenReserve()),
      address_(address),
      options_(options) {}

Listener::~Listener() {
  Stop();
  close(listen_fd_);
  close(wake_fd_);
  if (reserve_fd_ >= 0) close(reserve_fd_);
}

void Listener::Start(std::function<void(int fd)> handle) {
  thread_ = std::thread([this, handle = std::move(handle)] { Run(handle); });
}

void Listener::Stop() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  SLUICE_CHECK(write(wake_fd_, &one, sizeof(one)) == sizeof(one));
  thread_.join();
  // Those who wait in the queue, and whoever comes now, are refused at once.
  shutdown(listen_fd_, SHUT_RDWR);
}

int64_t Listener::open_connections() {
  MutexLock lock(&mutex_);
  ForgetClosed();
  return static_cast<int64_t>(connections_.size());
}

void Listener::CutConnections() {
  MutexLock lock(&mutex_);
  ForgetClosed();
  for (const Connection& connection : connections_) shutdown(connection.fd, SHUT_RDWR);
}

void Listener::Run(const std::function<void(int fd)>& handle) {
  bool no_files = false;
  while (true) {
    pollfd fds[] = {{wake_fd_, POLLIN, 0}, {listen_fd_, POLLIN, 0}};
    const int ready = no_files ? poll(fds, 1, kNoFilesPollMs) : poll(fds, 2, -1);
    if (ready < 0) continue;  // interrupted
    if (fds[0].revents != 0) return;
    errno = 0;
    while (AcceptOne(handle)) {
    }
    no_files = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
  }
}

bool Listener::AcceptOne(const std::function<void(int fd)>& handle) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  const int fd = accept4(listen_fd_, reinterpret_cast<sockaddr*>(&address), &size,
                         SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) {
    if (errno == EMFILE || errno == ENFILE) return ShedWithReserve();
    // The peer of this one is gone, or a signal came: there may be others.
    return errno == ECONNABORTED || errno == EINTR || errno == EPROTO;
  }
  Connection connection{fd, CookieOf(fd).value_or(0), PeerOf(address)};
  if (!HasRoomFor(connection.peer)) {
    close(fd);
    return true;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const unsigned lost_after = UserTimeout(options_.lost_after);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &lost_after, sizeof(lost_after));
  stats_.accepted.Add();
  {
    MutexLock lock(&mutex_);
    connections_.push_back(std::move(connection));
  }
  handle(fd);
  return true;
}

bool Listener::ShedWithReserve() {
  if (reserve_fd_ >= 0) close(std::exchange(reserve_fd_, -1));
  const int fd = accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
  const int why = errno;
  if (fd >= 0) {
    stats_.shed_files.Add();
    close(fd);
  }
  reserve_fd_ = OpenReserve();
  errno = why;
  return fd >= 0;
}

bool Listener::HasRoomFor(const std::string& peer) {
  MutexLock lock(&mutex_);
  if (!Full() && !PeerFull(peer)) return true;
  ForgetClosed();
  if (Full()) {
    stats_.shed_connections.Add();
    return false;
  }
  if (PeerFull(peer)) {
    stats_.shed_peer.Add();
    return false;
  }
  return true;
}

bool Listener::Full() const {
  return static_cast<int64_t>(connections_.size()) >= options_.max_connections;
}

bool Listener::PeerFull(const std::string& peer) const {
  int64_t from_peer = 0;
  for (const Connection& connection : connections_) from_peer += connection.peer == peer;
  return options_.max_connections_per_peer > 0 && from_peer >= options_.max_connections_per_peer;
}

void Listener::ForgetClosed() {
  const auto closed = [](const Connection& c) { return CookieOf(c.fd) != c.cookie; };
  connections_.erase(std::remove_if(connections_.begin(), connections_.end(), closed),
                     connections_.end());
}

int64_t RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return FileLimit();
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  return FileLimit();
}

}  // namespace sluice
