// The OpenAI-compatible port: HTTP/1.1 by libmicrohttpd, on one thread however many streams are
// open.
//
//   GET  /                      a page to try it
//   GET  /v1/models, /v1/models/{id}
//   POST /v1/completions, /v1/chat/completions
//
// It is a second door to the same house: tenants, bounds, queue and drain are those of the gRPC
// services. Plain HTTP: for TLS there is a proxy in front.
#ifndef SLUICE_SERVER_HTTP_HTTP_DOOR_H_
#define SLUICE_SERVER_HTTP_HTTP_DOOR_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/address.h"
#include "server/core/mutex.h"
#include "server/http/chat_template.h"
#include "server/http/connection_watch.h"
#include "server/http/http_exchange.h"
#include "server/http/openai_call.h"
#include "server/listener.h"
#include "sluice/v1/model.pb.h"

struct MHD_Daemon;

namespace sluice {

struct HttpRequest;

struct HttpDoorOptions {
  Address listen{};
  ListenerOptions connections{};
  int32_t max_header_bytes = 8192;
  absl::Duration keepalive_time = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(10);
  // For a whole request to come; also how long a connection may be idle.
  absl::Duration request_bound = absl::Seconds(60);
};

class HttpDoor {
 public:
  // Serves from now on. FAILED_PRECONDITION with the address and the reason. What `core` refers to
  // outlives the door.
  static absl::StatusOr<std::unique_ptr<HttpDoor>> Start(const HttpDoorOptions& options,
                                                         const InferenceParts& core,
                                                         const RequestBounds& bounds,
                                                         const v1::Model& model,
                                                         ChatTemplate chat_template);
  ~HttpDoor() { Stop(); }

  // From now on calls are refused, and connections end with their answer. Any thread.
  void Drain() { draining_.store(true, std::memory_order_relaxed); }
  // Gives answers a moment to go out, then closes every connection. Calls that have not ended may
  // refer to the door until its destruction. One thread.
  void Stop();

  const Address& address() const { return listener_->address(); }
  Listener* listener() const { return listener_.get(); }

 private:
  friend struct HttpCallbacks;

  HttpDoor(const HttpDoorOptions& options, const InferenceParts& core, const RequestBounds& bounds,
           const v1::Model& model, ChatTemplate chat_template);

  absl::Status StartMhd();
  void HandleConnection(int fd);

  // libmicrohttpd's thread. The head of a request has come: it may be refused already.
  void CheckHead(MHD_Connection* connection, HttpRequest* request);
  absl::StatusOr<TenantRef> TenantOf(MHD_Connection* connection) const;
  // Takes more of the body, or refuses when it, or all of them together, are too large.
  void AddBody(HttpRequest* request, absl::string_view bytes);
  void ReleaseBody(HttpRequest* request);
  // The whole of it has come.
  void Dispatch(const std::shared_ptr<HttpRequest>& request);
  void StartCall(const std::shared_ptr<HttpRequest>& request);
  void RunCall(HttpRequest* request);
  void Answer(HttpRequest* request, HttpReply reply, grpc::StatusCode code);

  void Add(std::shared_ptr<HttpExchange> exchange);
  void Remove(const std::shared_ptr<HttpExchange>& exchange);
  std::vector<std::shared_ptr<HttpExchange>> exchanges();
  // True once none is left.
  bool WaitForNone(absl::Duration bound);
  bool draining() const { return draining_.load(std::memory_order_relaxed); }

  const HttpDoorOptions options_;
  const OpenAiParts parts_;
  const ChatTemplate chat_template_;
  const std::string model_json_;
  std::atomic<bool> draining_{false};
  std::unique_ptr<ConnectionWatch> watch_;
  std::unique_ptr<Listener> listener_;
  MHD_Daemon* mhd_ = nullptr;
  std::atomic<int64_t> body_bytes_{0};  // of all requests that are not parsed yet

  Mutex mutex_;
  absl::flat_hash_set<std::shared_ptr<HttpExchange>> exchanges_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HTTP_DOOR_H_
