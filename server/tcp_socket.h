// Asks the kernel about a TCP connection whose descriptor somebody else owns and may close at any
// time.
#ifndef SLUICE_SERVER_TCP_SOCKET_H_
#define SLUICE_SERVER_TCP_SOCKET_H_

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sluice {

// One end of a connection. Two connections that are open at once differ in it.
struct PeerKey {
  std::array<uint8_t, 16> ip{};  // IPv4 as ::ffff:a.b.c.d
  uint16_t port = 0;

  bool operator==(const PeerKey&) const = default;
  template <typename H>
  friend H AbslHashValue(H hash, const PeerKey& key) {
    return H::combine(std::move(hash), key.ip, key.port);
  }
};

// All zeros for what is not IP.
PeerKey PeerKeyOf(const sockaddr_storage& address);
// Parses gRPC's name of a peer: "ipv4:127.0.0.1:4711", "ipv6:%5B::1%5D:4711".
std::optional<PeerKey> ParseGrpcPeer(absl::string_view peer);

// The number that no other socket of this boot has; nothing where `fd` is no socket.
std::optional<uint64_t> CookieOf(int fd);

struct TcpBytes {
  int64_t received = 0;  // what nobody has read yet included
  int64_t acked = 0;     // sent, and acknowledged by the peer
};
std::optional<TcpBytes> TcpBytesOf(int fd);

// Sends without delay, and ends when the peer acknowledges nothing for so long.
void SetTcpOptions(int fd, absl::Duration lost_after);

// Ends the connection, both ways: its owner sees the end. Does nothing where `fd` is another file
// by now.
void ShutDown(int fd, uint64_t cookie);

}  // namespace sluice

#endif  // SLUICE_SERVER_TCP_SOCKET_H_
