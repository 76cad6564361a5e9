#include "server/tcp_socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstring>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"

namespace sluice {
namespace {

// TCP_USER_TIMEOUT of a socket, in milliseconds; 0: the system's own.
unsigned UserTimeout(absl::Duration lost_after) {
  if (lost_after == absl::InfiniteDuration()) return 0;
  return static_cast<unsigned>(
      std::clamp<int64_t>(absl::ToInt64Milliseconds(lost_after), 1, INT_MAX));
}

void SetMapped(const in_addr& address, PeerKey* key) {
  key->ip[10] = key->ip[11] = 0xff;
  std::memcpy(key->ip.data() + 12, &address, 4);
}

}  // namespace

PeerKey PeerKeyOf(const sockaddr_storage& address) {
  PeerKey key;
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    SetMapped(v4.sin_addr, &key);
    key.port = ntohs(v4.sin_port);
  } else if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    std::memcpy(key.ip.data(), &v6.sin6_addr, 16);
    key.port = ntohs(v6.sin6_port);
  }
  return key;
}

std::optional<PeerKey> ParseGrpcPeer(absl::string_view peer) {
  const bool v6 = absl::ConsumePrefix(&peer, "ipv6:");
  if (!v6 && !absl::ConsumePrefix(&peer, "ipv4:")) return std::nullopt;
  const size_t colon = peer.rfind(':');
  uint32_t port = 0;
  if (colon == absl::string_view::npos || !absl::SimpleAtoi(peer.substr(colon + 1), &port) ||
      port > 65535) {
    return std::nullopt;
  }
  absl::string_view host = peer.substr(0, colon);
  if (!absl::ConsumePrefix(&host, "%5B")) absl::ConsumePrefix(&host, "[");
  if (!absl::ConsumeSuffix(&host, "%5D")) absl::ConsumeSuffix(&host, "]");
  const std::string text(host);
  PeerKey key;
  key.port = static_cast<uint16_t>(port);
  if (v6) {
    return inet_pton(AF_INET6, text.c_str(), key.ip.data()) == 1 ? std::optional(key)
                                                                 : std::nullopt;
  }
  in_addr address{};
  if (inet_pton(AF_INET, text.c_str(), &address) != 1) return std::nullopt;
  SetMapped(address, &key);
  return key;
}

std::optional<uint64_t> CookieOf(int fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) return std::nullopt;
  return cookie;
}

std::optional<TcpBytes> TcpBytesOf(int fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
      size < offsetof(tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received)) {
    return std::nullopt;
  }
  return TcpBytes{static_cast<int64_t>(info.tcpi_bytes_received),
                  static_cast<int64_t>(info.tcpi_bytes_acked)};
}

void SetTcpOptions(int fd, absl::Duration lost_after) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const unsigned timeout = UserTimeout(lost_after);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

void ShutDown(int fd, uint64_t cookie) {
  // The copy keeps the descriptor valid while the socket is looked at and shut down.
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) {
    // There is no descriptor left for a copy, so the number is used itself: only in an unlucky
    // moment is it another socket by now.
    if (CookieOf(fd) == cookie) shutdown(fd, SHUT_RDWR);
    return;
  }
  if (CookieOf(copy) == cookie) shutdown(copy, SHUT_RDWR);
  close(copy);
}

}  // namespace sluice
