#include "server/http/connection_watch.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "kernels/check.h"

namespace sluice {
namespace {

constexpr int kMaxEvents = 64;
constexpr int kSweepMs = 1000;
constexpr uint64_t kWakeId = 0;  // no connection's

}  // namespace

ConnectionWatch::ConnectionWatch(const Clock* clock, absl::Duration request_bound)
    : clock_(clock),
      request_bound_(request_bound),
      epoll_fd_(epoll_create1(EPOLL_CLOEXEC)),
      wake_fd_(eventfd(0, EFD_CLOEXEC)) {
  // At start, when there are descriptors.
  SLUICE_CHECK(epoll_fd_ >= 0 && wake_fd_ >= 0);
  epoll_event wake{};
  wake.events = EPOLLIN;
  wake.data.u64 = kWakeId;
  SLUICE_CHECK(epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, wake_fd_, &wake) == 0);
  thread_ = std::thread([this] { Run(); });
}

ConnectionWatch::~ConnectionWatch() {
  const uint64_t one = 1;
  SLUICE_CHECK(write(wake_fd_, &one, sizeof(one)) == sizeof(one));
  thread_.join();
  close(epoll_fd_);
  close(wake_fd_);
}

uint64_t ConnectionWatch::Open(int fd) {
  MutexLock lock(&mutex_);
  Connection& connection = connections_[++last_id_];
  connection.fd = fd;
  connection.since = clock_->Now();
  return last_id_;
}

void ConnectionWatch::Serve(uint64_t id, std::function<void()> on_gone) {
  MutexLock lock(&mutex_);
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  found->second.serving = true;
  found->second.on_gone = std::move(on_gone);
  epoll_event event{};
  event.events = EPOLLRDHUP | EPOLLONESHOT;
  event.data.u64 = id;
  epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, found->second.fd, &event);
}

void ConnectionWatch::Await(uint64_t id) {
  std::function<void()> unused;  // destroyed without the lock
  MutexLock lock(&mutex_);
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  if (found->second.serving) epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, found->second.fd, nullptr);
  found->second.serving = false;
  found->second.since = clock_->Now();
  found->second.on_gone.swap(unused);
}

void ConnectionWatch::Close(uint64_t id) {
  Await(id);
  MutexLock lock(&mutex_);
  connections_.erase(id);
}

void ConnectionWatch::Cut(uint64_t id) {
  MutexLock lock(&mutex_);
  const auto found = connections_.find(id);
  if (found != connections_.end()) shutdown(found->second.fd, SHUT_RDWR);
}

void ConnectionWatch::Run() {
  absl::Duration swept = clock_->Now();
  while (true) {
    epoll_event events[kMaxEvents];
    const int count = epoll_wait(epoll_fd_, events, kMaxEvents, kSweepMs);
    for (int i = 0; i < count; ++i) {
      if (events[i].data.u64 == kWakeId) return;
      TellGone(events[i].data.u64);
    }
    const absl::Duration now = clock_->Now();
    if (count > 0 && now - swept < absl::Milliseconds(kSweepMs)) continue;
    swept = now;
    CutLate(now);
  }
}

void ConnectionWatch::TellGone(uint64_t id) {
  std::function<void()> on_gone;
  {
    MutexLock lock(&mutex_);
    const auto found = connections_.find(id);
    if (found == connections_.end() || !found->second.serving) return;
    on_gone = std::exchange(found->second.on_gone, nullptr);
  }
  if (on_gone) on_gone();
}

void ConnectionWatch::CutLate(absl::Duration now) {
  MutexLock lock(&mutex_);
  for (const auto& [id, connection] : connections_) {
    if (!connection.serving && now - connection.since > request_bound_) {
      shutdown(connection.fd, SHUT_RDWR);
    }
  }
}

}  // namespace sluice
