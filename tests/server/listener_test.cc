#include "server/listener.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

namespace sluice {
namespace {

// Keeps what it is given, until told to close it.
class Owner {
 public:
  ~Owner() { CloseAll(); }
  void Take(int fd) {
    const std::lock_guard<std::mutex> lock(mutex_);
    fds_.push_back(fd);
    came_.notify_all();
  }
  void Await(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    came_.wait(lock, [&] { return fds_.size() >= count; });
  }
  void CloseAll() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (int fd : fds_) close(fd);
    fds_.clear();
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<int> fds_;
};

std::unique_ptr<Listener> MakeListener(const ListenerOptions& options, Owner* owner) {
  absl::StatusOr<std::unique_ptr<Listener>> listener = Listener::Bind({"127.0.0.1", 0}, options);
  EXPECT_TRUE(listener.ok()) << listener.status();
  (*listener)->Start([owner](int fd) { owner->Take(fd); });
  return *std::move(listener);
}

// A connected client's descriptor, or -1.
int Connect(const Listener& listener) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(listener.address().port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

// True if the peer has closed; waits for that or for a byte.
bool IsClosedByPeer(int fd) {
  char byte;
  return recv(fd, &byte, 1, 0) <= 0;
}

TEST(Listener, HandsConnectionsOverAndCountsThoseOpen) {
  Owner owner;
  const auto listener = MakeListener({}, &owner);
  EXPECT_GT(listener->address().port, 0);
  const int a = Connect(*listener), b = Connect(*listener);
  owner.Await(2);
  EXPECT_EQ(listener->connections().open(), 2);
  owner.CloseAll();
  EXPECT_EQ(listener->connections().open(), 0);
  EXPECT_TRUE(IsClosedByPeer(a));
  close(a);
  close(b);
  EXPECT_EQ(listener->stats().accepted.value(), 2u);
}

TEST(Listener, ClosesWhatIsAboveItsBoundAndServesAgainWhenThereIsRoom) {
  Owner owner;
  const auto listener = MakeListener({.bounds = {.max_connections = 2}}, &owner);
  std::vector<int> clients = {Connect(*listener), Connect(*listener)};
  owner.Await(2);
  const int shed = Connect(*listener);
  EXPECT_TRUE(IsClosedByPeer(shed));
  EXPECT_EQ(listener->connections().stats().shed_connections.value(), 1u);
  owner.CloseAll();
  clients.push_back(Connect(*listener));
  owner.Await(1);
  EXPECT_EQ(listener->stats().accepted.value(), 3u);
  close(shed);
  for (int fd : clients) close(fd);
}

TEST(Listener, BoundsOnePeer) {
  Owner owner;
  const auto listener = MakeListener({.bounds = {.max_connections_per_peer = 1}}, &owner);
  const int kept = Connect(*listener);
  owner.Await(1);
  const int shed = Connect(*listener);
  EXPECT_TRUE(IsClosedByPeer(shed));
  EXPECT_EQ(listener->connections().stats().shed_peer.value(), 1u);
  close(kept);
  close(shed);
}

TEST(Listener, SurvivesRunningOutOfDescriptors) {
  Owner owner;
  const auto listener = MakeListener({}, &owner);
  // The clients' sockets first: they are of this process too.
  std::vector<int> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit full = {static_cast<rlim_t>(clients.back() + 1), limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &full), 0);
  std::vector<int> fillers;
  for (int fd = dup(0); fd >= 0; fd = dup(0)) fillers.push_back(fd);

  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(listener->address().port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int fd : clients) {
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    EXPECT_TRUE(IsClosedByPeer(fd));
  }
  EXPECT_EQ(listener->stats().shed_files.value(), 8u);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  for (int fd : fillers) close(fd);
  for (int fd : clients) close(fd);

  const int served = Connect(*listener);
  owner.Await(1);
  EXPECT_EQ(listener->stats().accepted.value(), 1u);
  close(served);
}

TEST(Listener, RefusesOnceStopped) {
  Owner owner;
  const auto listener = MakeListener({}, &owner);
  listener->Stop();
  EXPECT_EQ(Connect(*listener), -1);
}

TEST(Listener, CutsOffWhatItsOwnersHold) {
  Owner owner;
  const std::unique_ptr<Listener> listener = MakeListener({}, &owner);
  const int fd = Connect(*listener);
  owner.Await(1);
  listener->Stop();
  listener->CutConnectionsIn(absl::ZeroDuration());
  char byte;
  EXPECT_EQ(read(fd, &byte, 1), 0);
  EXPECT_EQ(listener->connections().open(), 1) << "its owner closes it";
  close(fd);
}

TEST(Listener, SaysWhyItCannotListen) {
  Owner owner;
  const auto first = MakeListener({}, &owner);
  const auto second = Listener::Bind(first->address(), {});
  EXPECT_EQ(second.status().message(),
            "cannot listen on " + FormatAddress(first->address()) + ": Address already in use");
}

}  // namespace
}  // namespace sluice
