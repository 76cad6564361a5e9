// One connection of an HttpServer. All of it on the server's thread.
//
// It reads a request, has it handled, writes the answer, and begins anew: what a client sends
// ahead waits, up to a bound. Asio says when the socket can be read or written; reads and writes
// themselves never block and go through one buffer of the server's, so that an idle connection
// holds none.
#ifndef SLUICE_SERVER_HTTP_HTTP_CONNECTION_H_
#define SLUICE_SERVER_HTTP_HTTP_CONNECTION_H_

#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "server/http/http_parser.h"
#include "server/http/http_server.h"

namespace sluice {

class HttpConnection;

// All connections of a server share this, and it outlives them.
struct HttpServerContext {
  HttpServerContext(const HttpServerOptions& o, const Clock* c, HttpServerStats* s,
                    HttpServer::Handlers h)
      : options(o), clock(c), stats(s), handlers(std::move(h)), bodies(o.max_bodies_bytes) {}

  const HttpServerOptions options;
  const Clock* const clock;
  HttpServerStats* const stats;
  const HttpServer::Handlers handlers;
  BodyBudget bodies;
  std::atomic<bool> draining{false};
  std::function<void(HttpConnection*)> on_closed{};
  std::function<void(int64_t change)> on_requests_open{};
  std::array<char, 64 * 1024> scratch{};
  boost::asio::io_context io{1};
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  // Owns the descriptor, which does not block. `id`: larger than those of older ones.
  HttpConnection(HttpServerContext* context, uint64_t id, int fd);

  void Start();
  uint64_t id() const { return id_; }
  // It has no request in flight that somebody waits for.
  bool CanBeEvicted() const;
  // A call that came over it was answered whole.
  bool finished_call() const { return finished_call_; }
  // When its phase began, or the peer last took a byte.
  absl::Duration since() const { return since_; }
  // Ends what has taken too long.
  void Sweep(absl::Duration now);
  // Gives up on the request that is in flight, if there is one.
  void Cut();
  // At once. The request in flight is abandoned.
  void Close();

 private:
  enum class Phase : uint8_t { kReading, kServing, kLingering };

  void WaitReadable();
  void OnReadable();
  // `by_end`: it has shut down its writing side at least, else the connection is broken.
  void OnPeerEnd(bool by_end);
  void Advance();

  // True: there may be more to do.
  bool ReadStep();
  bool WriteStep();

  void TakeHead();
  void TakeBody(absl::string_view bytes);
  void EndRequest();
  void RefuseBody(absl::Status why);
  void Refuse(const HttpFault& fault);
  void CountFault(int status);
  // The rest of the request is not read: the connection ends with the answer.
  void AnswerNow();

  bool TakeOutput();
  void AppendPiece(absl::string_view piece);
  // Lets a client that waits for events see that it still has its connection.
  void FillSilence(absl::Duration now);
  void AppendHead(HttpReply reply, bool stream);
  // False: the socket takes no more for now, or the peer is gone.
  bool Flush();
  void Finish();
  void Linger();

  HttpServerContext* const context_;
  const uint64_t id_;
  boost::asio::ip::tcp::socket socket_;
  std::string peer_;
  Phase phase_ = Phase::kReading;
  bool closed_ = false;
  bool advancing_ = false;
  bool waits_readable_ = false;
  bool waits_writable_ = false;
  bool peer_ended_ = false;  // its writing side
  bool finished_call_ = false;
  absl::Duration since_;
  std::optional<absl::Duration> begun_{};  // the first byte of the request that comes in

  HttpParser parser_;
  std::string in_;
  // The request in flight.
  std::shared_ptr<HttpExchange> exchange_;
  HttpServer::BodyHandler on_body_;
  HttpBody body_;
  uint64_t dropped_ = 0;      // bytes of a body whose request was refused
  bool close_after_ = false;  // its answer
  // So many bytes may still come after the last answer.
  uint64_t linger_left_ = std::numeric_limits<uint64_t>::max();
  // The answer.
  std::string out_;
  size_t written_ = 0;  // of out_
  bool taken_ = false;  // out_ holds what the exchange had
  bool ended_ = false;  // out_ ends the answer
  bool stream_ = false;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HTTP_CONNECTION_H_
