// The OpenAI-compatible port: what is served over HTTP, and to whom.
//
//   GET  /                      a page to try it
//   GET  /openapi.json          what is served here, as OpenAPI describes it
//   GET  /v1/models, /v1/models/{id}
//   POST /v1/completions, /v1/chat/completions
//   .... /v1/sessions, and below it (SessionDoor)
//   POST /tokenize, /detokenize
//   GET  /tokenizer_info, /health, /version, /metrics
//
// It is a second door to the same house: tenants, bounds, queue and drain are those of the gRPC
// services. Plain HTTP: for TLS there is a proxy in front.
#ifndef SLUICE_SERVER_HTTP_HTTP_DOOR_H_
#define SLUICE_SERVER_HTTP_HTTP_DOOR_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/address.h"
#include "server/http/chat_template.h"
#include "server/http/http_error.h"
#include "server/http/http_exchange.h"
#include "server/http/http_server.h"
#include "server/http/openai_call.h"
#include "server/http/origin_policy.h"
#include "server/http/session_door.h"
#include "server/listener.h"
#include "sluice/v1/model.pb.h"

namespace sluice {

// What the door serves beside the calls.
struct HttpDoorParts {
  ChatTemplate chat_template;
  OriginPolicy origins{};
  SessionCalls* sessions = nullptr;        // outlives the door
  SamplingDefaults sampling{};             // of requests that are silent
  std::function<bool()> serving{};         // calls are let in; never waits
  std::function<std::string()> metrics{};  // null: none are served here
};

class HttpDoor {
 public:
  // Serves from now on. FAILED_PRECONDITION with the address and the reason. What `core` refers to
  // outlives the door. The bounds on bodies in `options` follow from `bounds`.
  static absl::StatusOr<std::unique_ptr<HttpDoor>> Start(
      HttpServerOptions options, HttpServerStats* stats, const InferenceParts& core,
      const RequestBounds& bounds, const v1::Model& model, HttpDoorParts parts);

  // Every method and path that is served, "{id}" in place of a name.
  static std::vector<std::pair<std::string, std::string>> Paths();

  // From now on calls are refused, and connections end with their answer. Any thread.
  void Drain();
  // Gives answers a moment to go out, then closes every connection. Calls that have not ended may
  // refer to the door until its destruction. One thread.
  void Stop() { server_->Stop(); }

  const Address& address() const { return server_->address(); }
  const HttpServer& server() const { return *server_; }

 private:
  struct Request;
  struct Route;
  using RequestRef = std::shared_ptr<Request>;

  HttpDoor(const InferenceParts& core, const RequestBounds& bounds, const v1::Model& model,
           HttpDoorParts parts);

  // The server's thread, but for RunCall.
  static absl::Span<const Route> Routes();
  static bool IsGet(const Route& route);
  // Null: there is nothing at the path. Otherwise one of its routes, that of the method if there is
  // one. `id` is what stands for {id}.
  static const Route* RouteOf(absl::string_view method, absl::string_view path, std::string* id);
  // The methods that a path takes, for Allow.
  static std::string MethodsOf(absl::string_view path);
  HttpServer::BodyHandler OnRequest(const std::shared_ptr<HttpExchange>& exchange);
  // Why the request is refused for its head.
  struct Refusal;
  std::optional<Refusal> CheckHead(Request* request) const;
  absl::StatusOr<TenantRef> TenantOf(const HttpExchange& exchange) const;
  void OnBody(const RequestRef& request, absl::StatusOr<HttpBody> body);

  void ServePage(const RequestRef& request);
  void ServeOpenApi(const RequestRef& request);
  void ServeModels(const RequestRef& request);
  void ServeModel(const RequestRef& request);
  void ServeHealth(const RequestRef& request);
  void ServeVersion(const RequestRef& request);
  void ServeMetrics(const RequestRef& request);
  void ServeTokenizerInfo(const RequestRef& request);
  void ServeTokens(const RequestRef& request);
  void ServeCall(const RequestRef& request);
  // Runs the request here, or on the worker if its body is large.
  void Run(const RequestRef& request, void (HttpDoor::*run)(Request*));
  void RunTokens(Request* request);
  void RunCall(Request* request);
  void ServeSession(const RequestRef& request);

  void Answer(const Request& request, HttpReply reply, grpc::StatusCode code);
  void Refuse(const Request& request, const absl::Status& status);

  const OpenAiParts parts_;
  const HttpDoorParts served_;
  const v1::Model model_;
  const std::string model_json_;
  const SessionDoor sessions_;
  std::atomic<bool> draining_{false};
  std::unique_ptr<HttpServer> server_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HTTP_DOOR_H_
