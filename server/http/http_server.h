// A small HTTP/1.1 server: one thread with an event loop (Boost.Asio), however many connections
// and streams are open. Both the OpenAI door and the admin port are made of it.
//
// Every connection is bounded in all: bytes of a head, seconds until it is there, seconds until the
// whole request is, seconds without one, and what it has unsent. Above three quarters of the
// connections' bound the oldest ones that have not finished a call are closed, and where all places
// are taken also those that wait for a request; never one with a request in flight.
#ifndef SLUICE_SERVER_HTTP_HTTP_SERVER_H_
#define SLUICE_SERVER_HTTP_HTTP_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/stats.h"
#include "server/address.h"
#include "server/http/http_body.h"
#include "server/http/http_exchange.h"
#include "server/http/http_message.h"
#include "server/listener.h"

namespace sluice {

struct HttpServerOptions {
  Address listen{};
  ListenerOptions connections{};
  size_t max_head_bytes = 8192;
  int64_t max_body_bytes = 0;                        // bound on one request's body
  int64_t max_bodies_bytes = 0;                      // bound on all bodies that are not parsed yet
  absl::Duration head_bound = absl::Seconds(10);     // from a head's first byte to its last
  absl::Duration request_bound = absl::Seconds(60);  // from a request's first byte to its last
  absl::Duration idle_bound = absl::Seconds(60);     // between requests
  absl::Duration write_bound = absl::Seconds(60);    // a peer may take nothing of a whole answer
  // A client that waits for events gets the head of its answer after `events_head_after`, and a
  // comment after every `events_silence` without a byte.
  absl::Duration events_head_after = absl::Seconds(1);
  absl::Duration events_silence = absl::InfiniteDuration();
  // The system probes for a peer that is lost without a word.
  absl::Duration keepalive_time = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(10);
  // A peer that shuts down its writing side while an answer is made counts as gone.
  bool half_close_cancels = true;
  // Only a caller who may call sends what counts as a call, so its connection is kept while the
  // body comes.
  bool callers_authenticate = false;
  // A peer that does not take its whole answer makes room too: nobody may keep others from asking.
  bool evict_slow_readers = false;
};

// Several servers may count into one.
struct HttpServerStats {
  Counter requests;           // whose head came whole and was understood
  Counter malformed;          // refused with 400, 417 or 505
  Counter unknown_coding;     // with 501
  Counter too_large;          // with 413 or 431
  Counter late;               // with 408
  Counter evicted_strangers;  // connections closed for others, which had finished no call
  Counter evicted_idle;       // the same of those that waited for a request
};

class HttpServer {
 public:
  // Called once for each request, with its body, or OUT_OF_RANGE if it is larger than
  // max_body_bytes, or RESOURCE_EXHAUSTED if all bodies are larger than max_bodies_bytes. It
  // answers in the end.
  using BodyHandler = std::function<void(absl::StatusOr<HttpBody> body)>;

  // Called on the server's thread: neither waits.
  struct Handlers {
    // Called when the head has come. To refuse the request, it answers; the returned handler is
    // then not called.
    std::function<BodyHandler(const std::shared_ptr<HttpExchange>& exchange)> on_request;
    // Gives the server's own answer to bytes that make no request.
    std::function<HttpReply(const HttpFault& fault)> on_fault;
  };

  // Serves from now on. FAILED_PRECONDITION with the address and the reason. Clock and statistics
  // outlive it.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options,
                                                           const Clock* clock,
                                                           HttpServerStats* stats,
                                                           Handlers handlers);
  // Stops. Nobody uses an exchange any more.
  ~HttpServer();

  // From now on connections end with their answer. Any thread.
  void Drain();
  // Gives answers a moment to go out, then closes every connection. Exchanges may be used until the
  // destruction. One thread.
  void Stop();

  const Address& address() const;
  Listener* listener() const;

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HTTP_SERVER_H_
