// One request and its answer: the seam between the daemon's threads and libmicrohttpd's one.
//
// The discipline: libmicrohttpd's thread alone calls libmicrohttpd, but for one function,
// MHD_resume_connection. While there is nothing to send the connection is suspended; whoever has
// something leaves it here and resumes. A piece of a stream is done when libmicrohttpd asks for
// more, which it does once the socket has taken all of the last: nothing piles up in between.
#ifndef SLUICE_SERVER_HTTP_HTTP_EXCHANGE_H_
#define SLUICE_SERVER_HTTP_HTTP_EXCHANGE_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/core/mutex.h"
#include "server/http/connection_watch.h"

struct MHD_Connection;
struct MHD_Response;

namespace sluice {

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body{};
  std::vector<std::pair<std::string, std::string>> headers{};
};

class HttpExchange : public std::enable_shared_from_this<HttpExchange> {
 public:
  // Called once: true when the socket has the bytes, false when nobody will get them.
  using Done = std::function<void(bool ok)>;

  HttpExchange(MHD_Connection* connection, uint64_t connection_id, ConnectionWatch* watch)
      : connection_id_(connection_id), watch_(watch), connection_(connection) {}

  // ---- Any thread; none of it waits. Calls `done`s and `on_gone` with no lock held. ----

  // `on_gone` is called once the client has left, or now if it has. Once, before the answer.
  void set_on_gone(std::function<void()> on_gone);
  // The answer, whole.
  void Reply(HttpReply reply);
  // Or in pieces: Start, with the headers, then Send any number of times, then End.
  void Start(HttpReply head);
  void Send(std::string bytes, Done done);
  void End();
  // Gives up on the client: every piece on its way is done, without success, and the connection
  // ends.
  void Cut();

  // ---- libmicrohttpd's thread ----

  enum class Next : uint8_t { kSuspended, kReply, kStream, kGone };
  // The request is whole and has no answer yet. kReply, kStream: TakeReply has it, and it is to be
  // queued.
  Next Advance();
  HttpReply TakeReply();
  // Bytes of a stream: as MHD_ContentReaderCallback.
  ssize_t Read(char* out, size_t max);
  // libmicrohttpd is through with the request. `ok`: the whole answer went out.
  void Complete(bool ok);

 private:
  struct Piece {
    std::string bytes;
    Done done;
  };

  void Wake() SLUICE_REQUIRES(mutex_);
  void Suspend() SLUICE_REQUIRES(mutex_);
  // Every piece on its way, which will not arrive.
  std::vector<Done> TakeUndone() SLUICE_REQUIRES(mutex_);
  void Abandon();

  const uint64_t connection_id_;
  ConnectionWatch* const watch_;

  Mutex mutex_;
  MHD_Connection* connection_ SLUICE_GUARDED_BY(mutex_);  // null once completed
  bool suspended_ SLUICE_GUARDED_BY(mutex_) = false;
  bool gone_ SLUICE_GUARDED_BY(mutex_) = false;
  std::function<void()> on_gone_ SLUICE_GUARDED_BY(mutex_);
  std::optional<HttpReply> reply_ SLUICE_GUARDED_BY(mutex_);
  bool streams_ SLUICE_GUARDED_BY(mutex_) = false;
  bool ended_ SLUICE_GUARDED_BY(mutex_) = false;
  std::deque<Piece> pieces_ SLUICE_GUARDED_BY(mutex_);
  size_t read_ SLUICE_GUARDED_BY(mutex_) = 0;           // of the first piece
  std::vector<Done> copied_ SLUICE_GUARDED_BY(mutex_);  // of pieces that libmicrohttpd has
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HTTP_EXCHANGE_H_
