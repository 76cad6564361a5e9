// HTTP as bytes on a socket: what a polite client would never send.
#ifndef SLUICE_TESTS_FAKES_RAW_HTTP_H_
#define SLUICE_TESTS_FAKES_RAW_HTTP_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "server/address.h"

namespace sluice {

// A connection to a server on this machine. Waits are bounded by `kPatienceMs`.
class RawHttp {
 public:
  static constexpr int kPatienceMs = 20000;

  // `receive_bytes`: of the socket's buffer; 0: the system's choice.
  explicit RawHttp(const Address& address, int receive_bytes = 0)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(address.port));
    inet_pton(AF_INET, address.host.c_str(), &to.sin_addr);
    if (receive_bytes > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    }
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  }
  ~RawHttp() { close(fd_); }
  RawHttp(const RawHttp&) = delete;
  RawHttp& operator=(const RawHttp&) = delete;

  // False: the server has ended the connection.
  bool Send(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  void HalfClose() { shutdown(fd_, SHUT_WR); }

  // Reads until `end` is among what came, the server ends the connection, or nothing comes for
  // `patience_ms`. All that has come, from the connection's beginning.
  const std::string& ReadUntil(absl::string_view end, int patience_ms = kPatienceMs) {
    pollfd ready = {fd_, POLLIN, 0};
    while (!closed_ && (end.empty() || !absl::StrContains(got_, end)) &&
           poll(&ready, 1, patience_ms) == 1) {
      char buffer[65536];
      const ssize_t size = recv(fd_, buffer, sizeof(buffer), 0);
      if (size <= 0) {
        closed_ = true;
      } else {
        got_.append(buffer, static_cast<size_t>(size));
      }
    }
    return got_;
  }
  const std::string& ReadToEnd() { return ReadUntil(""); }
  // The server has ended the connection, as far as it was read.
  bool closed() const { return closed_; }

  // Answers in what came.
  static int Count(absl::string_view text, absl::string_view what = "HTTP/1.1 ") {
    int count = 0;
    for (size_t at = text.find(what); at != absl::string_view::npos; at = text.find(what, at + 1)) {
      ++count;
    }
    return count;
  }
  // Status of the first answer; 0 where there is none.
  static int StatusOf(absl::string_view text) {
    int status = 0;
    if (!absl::StartsWith(text, "HTTP/1.1 ") || !absl::SimpleAtoi(text.substr(9, 3), &status)) {
      return 0;
    }
    return status;
  }

 private:
  const int fd_;
  bool closed_ = false;
  std::string got_;
};

// GET `path`: its status, and the body in `body` unless that is null.
inline int RawGet(const Address& address, absl::string_view path, std::string* body = nullptr) {
  RawHttp http(address);
  http.Send(absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  const std::string& answer = http.ReadToEnd();
  if (body != nullptr) {
    const size_t head = answer.find("\r\n\r\n");
    *body = head == std::string::npos ? "no answer" : answer.substr(head + 4);
  }
  return RawHttp::StatusOf(answer);
}

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_RAW_HTTP_H_
