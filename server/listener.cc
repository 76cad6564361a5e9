#include "server/listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "server/tcp_socket.h"

namespace sluice {
namespace {

constexpr int kBacklog = 1024;
// Connections accepted between two looks at those that are open.
constexpr int kAcceptsAtOnce = 64;
// Descriptors that connections leave for files, event queues and the admin port.
constexpr int64_t kReservedFiles = 64;
// When there is no descriptor even to close a connection with: somebody else must give one back.
constexpr int kNoFilesPollMs = 10;

int OpenReserve() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

int64_t FileLimit() {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<int64_t>(limit.rlim_cur) : 1024;
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
  bounded.bounds.max_connections =
      static_cast<int32_t>(std::min<int64_t>(options.bounds.max_connections, files));
  const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
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
      options_(options),
      connections_(options.bounds) {}

Listener::~Listener() {
  Stop();
  if (thread_.joinable()) {
    {
      MutexLock lock(&mutex_);
      end_ = true;
    }
    Wake();
    thread_.join();
  }
  close(listen_fd_);
  close(wake_fd_);
  if (reserve_fd_ >= 0) close(reserve_fd_);
}

void Listener::Start(std::function<void(int fd)> handle) {
  thread_ = std::thread([this, handle = std::move(handle)] { Run(handle); });
}

void Listener::Stop() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  Wake();
  {
    MutexLock lock(&mutex_);
    while (!stopped_) stopped_bell_.WaitFor(&mutex_, absl::InfiniteDuration());
  }
  // Connections that wait in the queue, and those that come now, are refused at once.
  shutdown(listen_fd_, SHUT_RDWR);
}

void Listener::CutConnectionsIn(absl::Duration after) {
  {
    MutexLock lock(&mutex_);
    cut_at_ = clock_.Now() + after;
  }
  Wake();
}

void Listener::Wake() {
  const uint64_t one = 1;
  SLUICE_CHECK(write(wake_fd_, &one, sizeof(one)) == sizeof(one));
}

void Listener::Run(const std::function<void(int fd)>& handle) {
  bool no_files = false;
  while (DoCommands()) {
    int sleep_ms = LookAround();
    if (no_files) sleep_ms = kNoFilesPollMs;
    pollfd fds[] = {{wake_fd_, POLLIN, 0}, {listen_fd_, POLLIN, 0}};
    if (poll(fds, accepts_ && !no_files ? 2 : 1, sleep_ms) < 0) continue;  // interrupted
    if (!accepts_) continue;
    errno = 0;
    for (int i = 0; i < kAcceptsAtOnce && AcceptOne(handle); ++i) {
    }
    no_files = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
  }
}

bool Listener::DoCommands() {
  uint64_t wakes = 0;
  if (read(wake_fd_, &wakes, sizeof(wakes)) != sizeof(wakes)) return true;
  MutexLock lock(&mutex_);
  if (stop_) {
    accepts_ = false;
    stopped_ = true;
    stopped_bell_.NotifyOne();
  }
  return !end_;
}

int Listener::LookAround() {
  const absl::Duration now = clock_.Now();
  absl::Duration sleep = connections_.Look(now);
  {
    MutexLock lock(&mutex_);
    if (cut_at_ <= now) {
      cut_at_ = absl::InfiniteDuration();
      connections_.CutAll();
    }
    sleep = std::min(sleep, cut_at_ - now);
  }
  if (sleep == absl::InfiniteDuration()) return -1;
  return static_cast<int>(std::clamp<int64_t>(absl::ToInt64Milliseconds(sleep) + 1, 1, INT_MAX));
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
  const PeerKey peer = PeerKeyOf(address);
  if (!connections_.MakeRoomFor(peer, clock_.Now())) {
    close(fd);
    return true;
  }
  SetTcpOptions(fd, options_.lost_after);
  stats_.accepted.Add();
  connections_.Add(fd, peer, clock_.Now());
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

int64_t RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return FileLimit();
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  return FileLimit();
}

}  // namespace sluice
