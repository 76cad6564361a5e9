#include "server/connections.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

namespace sluice {
namespace {

constexpr absl::Duration kStart = absl::Seconds(100);

// Real connections over loopback: the daemon's ends, which it owns as gRPC would, and the peers'.
class Sockets {
 public:
  Sockets() {
    listen_fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(listen_fd_, reinterpret_cast<sockaddr*>(&any), sizeof(any)), 0);
    EXPECT_EQ(listen(listen_fd_, 64), 0);
  }
  ~Sockets() {
    close(listen_fd_);
    for (const int fd : peers_) close(fd);
    for (const int fd : served_) close(fd);
  }

  // One more connection; its number.
  size_t Connect() {
    sockaddr_storage to{};
    socklen_t size = sizeof(to);
    EXPECT_EQ(getsockname(listen_fd_, reinterpret_cast<sockaddr*>(&to), &size), 0);
    peers_.push_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(peers_.back(), reinterpret_cast<sockaddr*>(&to), size), 0);
    sockaddr_storage from{};
    size = sizeof(from);
    served_.push_back(accept4(listen_fd_, reinterpret_cast<sockaddr*>(&from), &size, SOCK_CLOEXEC));
    keys_.push_back(PeerKeyOf(from));
    return peers_.size() - 1;
  }

  int served(size_t i) const { return served_[i]; }
  const PeerKey& key(size_t i) const { return keys_[i]; }
  // The daemon's end was shut down; nothing is waited for.
  bool Ended(size_t i) const {
    pollfd poll_fd = {peers_[i], POLLIN, 0};
    char byte;
    return poll(&poll_fd, 1, 0) > 0 && recv(peers_[i], &byte, 1, MSG_PEEK) <= 0;
  }
  void SendToDaemon(size_t i, size_t bytes) {
    const std::string data(bytes, 'x');
    EXPECT_EQ(send(peers_[i], data.data(), bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
  }
  void SendToPeer(size_t i, size_t bytes) {
    std::string data(bytes, 'x');
    EXPECT_EQ(send(served_[i], data.data(), bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
    EXPECT_EQ(recv(peers_[i], data.data(), bytes, MSG_WAITALL), static_cast<ssize_t>(bytes));
  }
  void CloseServed(size_t i) { close(std::exchange(served_[i], -1)); }

 private:
  int listen_fd_;
  std::vector<int> peers_, served_;
  std::vector<PeerKey> keys_;
};

ConnectionBounds Bounds() {
  return {.max_connections = 8,
          .calls_are_reported = true,
          .max_unclaimed_bytes = 1000,
          .max_call_bytes = 500};
}

class ConnectionsTest : public testing::Test {
 protected:
  void Add(size_t count, absl::Duration now = kStart) {
    for (size_t i = 0; i < count; ++i) {
      const size_t n = sockets_.Connect();
      ASSERT_TRUE(all_.MakeRoomFor(sockets_.key(n), now));
      all_.Add(sockets_.served(n), sockets_.key(n), now);
    }
  }
  std::vector<size_t> Ended(size_t count) const {
    std::vector<size_t> ended;
    for (size_t i = 0; i < count; ++i) {
      if (sockets_.Ended(i)) ended.push_back(i);
    }
    return ended;
  }
  void Call(size_t i, bool cancelled = false) {
    const std::shared_ptr<ConnectionUse> use = all_.BeginCall(sockets_.key(i));
    ASSERT_NE(use, nullptr);
    use->EndCall(all_.call_bytes(), cancelled);
  }

  Sockets sockets_;
  Connections all_{Bounds()};
};

using Numbers = std::vector<size_t>;

TEST_F(ConnectionsTest, AFullHouseClosesTheOldestThatNeverCalled) {
  Add(9);
  EXPECT_EQ(Ended(9), Numbers{0});
  Add(1);
  EXPECT_EQ(Ended(10), (Numbers{0, 1}));
  EXPECT_EQ(all_.stats().evicted_no_call.value(), 2u);
  EXPECT_EQ(all_.stats().shed_connections.value(), 0u);
}

TEST_F(ConnectionsTest, OneThatCalledOrHasACallInFlightStays) {
  Add(8);
  Call(0);
  const std::shared_ptr<ConnectionUse> in_flight = all_.BeginCall(sockets_.key(1));
  Add(1);
  EXPECT_EQ(Ended(9), Numbers{2});
  in_flight->EndCall(all_.call_bytes(), /*cancelled=*/true);
  Add(1);
  EXPECT_EQ(Ended(10), (Numbers{1, 2})) << "a call that its client ended counts for nothing";
}

TEST_F(ConnectionsTest, AboveThreeQuartersNewcomersHaveTimeForTheirFirstCall) {
  Add(7);
  all_.Look(kStart + absl::Seconds(1));
  EXPECT_EQ(Ended(7), Numbers{});
  all_.Look(kStart + absl::Seconds(6));
  EXPECT_EQ(Ended(7), Numbers{0}) << "six of eight may stay";
  all_.Look(kStart + absl::Seconds(20));
  EXPECT_EQ(Ended(7), Numbers{0});
}

TEST_F(ConnectionsTest, WhereAllHaveCalledTheNewcomerGoes) {
  Add(8);
  for (size_t i = 0; i < 8; ++i) Call(i);
  const size_t newcomer = sockets_.Connect();
  EXPECT_FALSE(all_.MakeRoomFor(sockets_.key(newcomer), kStart));
  EXPECT_EQ(Ended(8), Numbers{});
  EXPECT_EQ(all_.stats().shed_connections.value(), 1u);
}

TEST_F(ConnectionsTest, WithoutReportsNobodyIsClosed) {
  ConnectionBounds bounds = Bounds();
  bounds.calls_are_reported = false;
  Connections unreported(bounds);
  for (int i = 0; i < 8; ++i) {
    const size_t n = sockets_.Connect();
    ASSERT_TRUE(unreported.MakeRoomFor(sockets_.key(n), kStart));
    unreported.Add(sockets_.served(n), sockets_.key(n), kStart);
    sockets_.SendToDaemon(n, 2000);
  }
  EXPECT_FALSE(unreported.MakeRoomFor(sockets_.key(0), kStart));
  EXPECT_EQ(unreported.Look(kStart + absl::Hours(1)), absl::InfiniteDuration());
  EXPECT_EQ(Ended(8), Numbers{});
}

TEST_F(ConnectionsTest, EndsWhoSendsMoreThanItsCallsTook) {
  Add(3);
  sockets_.SendToDaemon(0, 1001);
  sockets_.SendToDaemon(1, 1000);
  sockets_.SendToDaemon(2, 1500);
  Call(2);
  all_.Look(kStart);
  EXPECT_EQ(Ended(3), Numbers{0});
  EXPECT_EQ(all_.stats().evicted_unclaimed.value(), 1u);
  // Connections that have called are looked at once a second.
  sockets_.SendToDaemon(2, 1);
  all_.Look(kStart + absl::Milliseconds(100));
  EXPECT_EQ(Ended(3), Numbers{0});
  all_.Look(kStart + absl::Seconds(2));
  EXPECT_EQ(Ended(3), (Numbers{0, 2}));
}

TEST_F(ConnectionsTest, ACancelledCallTookNothing) {
  Add(1);
  for (int i = 0; i < 100; ++i) Call(0, /*cancelled=*/true);
  sockets_.SendToDaemon(0, 1001);
  all_.Look(kStart);
  EXPECT_EQ(Ended(1), Numbers{0});
}

TEST_F(ConnectionsTest, WhoReadsMaySendAcknowledgements) {
  Add(1);
  sockets_.SendToPeer(0, 400'000);
  sockets_.SendToDaemon(0, 50'000);
  all_.Look(kStart);
  EXPECT_EQ(Ended(1), Numbers{});
}

TEST_F(ConnectionsTest, ForgetsWhatItsOwnerClosed) {
  Add(2);
  EXPECT_EQ(all_.open(), 2);
  sockets_.CloseServed(0);
  EXPECT_EQ(all_.open(), 1);
  EXPECT_EQ(all_.BeginCall(sockets_.key(0)), nullptr);
  EXPECT_NE(all_.BeginCall(sockets_.key(1)), nullptr);
}

// ---- Names of peers ----

TEST(ParseGrpcPeer, NamesTheSameEndAsTheSocketDoes) {
  sockaddr_storage storage{};
  auto& v4 = reinterpret_cast<sockaddr_in&>(storage);
  v4.sin_family = AF_INET;
  v4.sin_port = htons(4711);
  inet_pton(AF_INET, "10.1.2.3", &v4.sin_addr);
  EXPECT_EQ(ParseGrpcPeer("ipv4:10.1.2.3:4711"), PeerKeyOf(storage));
  EXPECT_NE(ParseGrpcPeer("ipv4:10.1.2.3:4712"), PeerKeyOf(storage));

  storage = {};
  auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(80);
  inet_pton(AF_INET6, "fe80::1", &v6.sin6_addr);
  EXPECT_EQ(ParseGrpcPeer("ipv6:%5Bfe80::1%5D:80"), PeerKeyOf(storage));
  EXPECT_EQ(ParseGrpcPeer("ipv6:[fe80::1]:80"), PeerKeyOf(storage));

  // An IPv4 peer of a socket that listens on both: gRPC names it by its IPv4 address.
  inet_pton(AF_INET6, "::ffff:10.1.2.3", &v6.sin6_addr);
  EXPECT_EQ(ParseGrpcPeer("ipv4:10.1.2.3:80"), PeerKeyOf(storage));
}

TEST(ParseGrpcPeer, TakesNothingElse) {
  for (const char* peer : {"", "ipv4:", "ipv4:10.1.2.3", "ipv4:10.1.2.3:", "ipv4:10.1.2.3:65536",
                           "ipv4:10.1.2:80", "ipv6:%5Bx%5D:80", "unix:/tmp/socket", "inproc"}) {
    EXPECT_EQ(ParseGrpcPeer(peer), std::nullopt) << peer;
  }
}

}  // namespace
}  // namespace sluice
