#include "server/http/http_door.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "server/admit_request.h"
#include "server/http/http_error.h"
#include "server/http/openai_model.h"
#include "server/http/openai_request.h"
#include "server/http/page.h"
#include "server/log.h"
#include "server/trace.h"

namespace sluice {
namespace {

// Parsing more than this takes long enough for other connections to notice.
constexpr size_t kInlineBytes = 64 * 1024;
// Of all bodies that are not parsed yet, in the largest allowed.
constexpr int64_t kMaxBodies = 64;
// Of a connection, beside its headers: what is read and written at once.
constexpr size_t kBufferBytes = 16 * 1024;
constexpr size_t kBlockBytes = 8 * 1024;
// libmicrohttpd counts a connection until it has cleaned up after it.
constexpr unsigned kClosingConnections = 64;
constexpr int kUnsentBytes = 32 * 1024;
constexpr absl::Duration kFlush = absl::Seconds(1);
constexpr std::chrono::milliseconds kPollInterval(2);

enum class Route : uint8_t { kUnknown, kPage, kModels, kModel, kCompletions, kChat };

constexpr absl::string_view kModelPrefix = "/v1/models/";

Route RouteOf(absl::string_view path) {
  if (path == "/") return Route::kPage;
  if (path == "/v1/models") return Route::kModels;
  if (absl::StartsWith(path, kModelPrefix)) return Route::kModel;
  if (path == "/v1/completions") return Route::kCompletions;
  if (path == "/v1/chat/completions") return Route::kChat;
  return Route::kUnknown;
}

bool IsCall(Route route) { return route == Route::kCompletions || route == Route::kChat; }

Method MethodOf(Route route) {
  if (route == Route::kCompletions) return Method::kCompletions;
  return route == Route::kChat ? Method::kChatCompletions : Method::kModels;
}

absl::string_view HeaderOf(MHD_Connection* connection, const char* name) {
  const char* value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
  return value == nullptr ? absl::string_view() : value;
}

MHD_Result TakeTraceparent(void* cls, MHD_ValueKind /*kind*/, const char* name, const char* value) {
  if (absl::EqualsIgnoreCase(name, kTraceparent)) {
    static_cast<std::vector<absl::string_view>*>(cls)->push_back(value == nullptr ? "" : value);
  }
  return MHD_YES;
}

// More than one traceparent is none.
TraceSpan SpanOf(MHD_Connection* connection) {
  std::vector<absl::string_view> found;
  MHD_get_connection_values(connection, MHD_HEADER_KIND, &TakeTraceparent, &found);
  return found.size() == 1 ? StartSpan(found.front()) : TraceSpan();
}

bool IsJson(absl::string_view content_type) {
  return absl::EqualsIgnoreCase(
      absl::StripAsciiWhitespace(content_type.substr(0, content_type.find(';'))),
      "application/json");
}

// As gRPC names a peer, so that both doors know it by one name.
std::string PeerOf(MHD_Connection* connection) {
  const MHD_ConnectionInfo* info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  char text[INET6_ADDRSTRLEN] = "";
  if (info == nullptr || info->client_addr == nullptr) return "";
  const sockaddr* address = info->client_addr;
  if (address->sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text,
              sizeof(text));
    return absl::StrCat("ipv4:", text);
  }
  inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, text,
            sizeof(text));
  return absl::StrCat("ipv6:%5B", text, "%5D");
}

HttpReply PageReply() {
  HttpReply reply;
  reply.content_type = "text/html; charset=utf-8";
  reply.body = std::string(Page());
  reply.headers.emplace_back("Content-Security-Policy", PagePolicy());
  reply.headers.emplace_back("X-Content-Type-Options", "nosniff");
  reply.headers.emplace_back("Referrer-Policy", "no-referrer");
  return reply;
}

void AddHeader(MHD_Response* response, const char* name, const std::string& value) {
  MHD_add_response_header(response, name, value.c_str());
}

MHD_Result Queue(MHD_Connection* connection, MHD_Response* response, const HttpReply& reply,
                 const CallRecord& call, bool close) {
  AddHeader(response, MHD_HTTP_HEADER_CONTENT_TYPE, reply.content_type);
  AddHeader(response, "x-request-id", call.request_id);
  if (call.span.traced()) AddHeader(response, kTraceparent, call.span.Header());
  for (const auto& [name, value] : reply.headers) AddHeader(response, name.c_str(), value);
  if (close) AddHeader(response, MHD_HTTP_HEADER_CONNECTION, "close");
  const MHD_Result result =
      MHD_queue_response(connection, static_cast<unsigned>(reply.status), response);
  MHD_destroy_response(response);
  return result;
}

uint64_t IdOf(void* socket_context) { return reinterpret_cast<uintptr_t>(socket_context); }

}  // namespace

// A request as it comes in.
struct HttpRequest {
  std::shared_ptr<HttpExchange> exchange;
  uint64_t connection_id = 0;
  Route route = Route::kUnknown;
  std::string path;
  CallRecord record;
  TenantRef tenant;
  std::string body;
  std::atomic<int64_t> reserved{0};  // of HttpDoor::body_bytes_
  std::optional<HttpReply> refusal;  // told when the whole request is here
  grpc::StatusCode refusal_code = grpc::StatusCode::OK;
  bool dispatched = false;

  void Refuse(const HttpError& error, grpc::StatusCode code) {
    if (refusal.has_value()) return;
    refusal = ErrorReply(error);
    refusal_code = code;
    body = std::string();
  }
};

// What libmicrohttpd calls, on its thread.
struct HttpCallbacks {
  using RequestRef = std::shared_ptr<HttpRequest>;

  static MHD_Result Access(void* cls, MHD_Connection* connection, const char* url,
                           const char* method, const char* /*version*/, const char* upload,
                           size_t* upload_size, void** state) {
    HttpDoor* door = static_cast<HttpDoor*>(cls);
    if (*state == nullptr) {
      RequestRef* request = new RequestRef(Open(door, connection, url, method));
      *state = request;
      door->CheckHead(connection, request->get());
      return MHD_YES;
    }
    const RequestRef& request = *static_cast<RequestRef*>(*state);
    if (*upload_size > 0) {
      door->AddBody(request.get(), {upload, *upload_size});
      *upload_size = 0;
      return MHD_YES;
    }
    if (!std::exchange(request->dispatched, true)) door->Dispatch(request);
    return Advance(door, connection, request.get());
  }

  static RequestRef Open(HttpDoor* door, MHD_Connection* connection, const char* url,
                         const char* method) {
    const RequestRef request = std::make_shared<HttpRequest>();
    request->connection_id = IdOf(
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context);
    request->path = url;
    request->route = RouteOf(request->path);
    request->record.method = MethodOf(request->route);
    request->record.request_id = RequestIdFrom(std::string(HeaderOf(connection, "x-request-id")));
    request->record.started = door->parts_.core.clock->Now();
    request->record.span = SpanOf(connection);
    request->exchange =
        std::make_shared<HttpExchange>(connection, request->connection_id, door->watch_.get());
    door->Add(request->exchange);
    const bool get = absl::string_view(method) == "GET";
    if (request->route == Route::kUnknown) {
      request->Refuse(BadRequest(404, "there is nothing at this path", "not_found"),
                      grpc::StatusCode::NOT_FOUND);
    } else if (IsCall(request->route) ? absl::string_view(method) != "POST" : !get) {
      request->Refuse(BadRequest(405, "this path does not take this method", "method_not_allowed"),
                      grpc::StatusCode::UNIMPLEMENTED);
      request->refusal->headers.emplace_back("Allow", IsCall(request->route) ? "POST" : "GET");
    }
    return request;
  }

  // Queues the answer if there is one, else suspends the connection.
  static MHD_Result Advance(HttpDoor* door, MHD_Connection* connection, HttpRequest* request) {
    switch (request->exchange->Advance()) {
      case HttpExchange::Next::kSuspended:
        return MHD_YES;
      case HttpExchange::Next::kGone:
        return MHD_NO;
      case HttpExchange::Next::kReply: {
        HttpReply reply = request->exchange->TakeReply();
        MHD_Response* response = MHD_create_response_from_buffer(
            reply.body.size(), reply.body.data(), MHD_RESPMEM_MUST_COPY);
        if (response == nullptr) return MHD_NO;
        return Queue(connection, response, reply, request->record, door->draining());
      }
      case HttpExchange::Next::kStream: {
        const HttpReply head = request->exchange->TakeReply();
        auto* exchange = new std::shared_ptr<HttpExchange>(request->exchange);
        MHD_Response* response = MHD_create_response_from_callback(
            MHD_SIZE_UNKNOWN, kBlockBytes, &HttpCallbacks::Read, exchange, &HttpCallbacks::Free);
        if (response == nullptr) {
          Free(exchange);
          return MHD_NO;
        }
        return Queue(connection, response, head, request->record, door->draining());
      }
    }
    return MHD_NO;
  }

  static ssize_t Read(void* cls, uint64_t /*position*/, char* out, size_t max) {
    return (*static_cast<std::shared_ptr<HttpExchange>*>(cls))->Read(out, max);
  }

  static void Free(void* cls) { delete static_cast<std::shared_ptr<HttpExchange>*>(cls); }

  static void Completed(void* cls, MHD_Connection* /*connection*/, void** state,
                        MHD_RequestTerminationCode code) {
    HttpDoor* door = static_cast<HttpDoor*>(cls);
    std::unique_ptr<RequestRef> request(static_cast<RequestRef*>(std::exchange(*state, nullptr)));
    if (request == nullptr) return;
    door->ReleaseBody(request->get());
    door->watch_->Await((*request)->connection_id);
    (*request)->exchange->Complete(code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    door->Remove((*request)->exchange);
  }

  static void Connection(void* cls, MHD_Connection* connection, void** socket_context,
                         MHD_ConnectionNotificationCode code) {
    HttpDoor* door = static_cast<HttpDoor*>(cls);
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) return door->watch_->Close(IdOf(*socket_context));
    const int fd =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    *socket_context = reinterpret_cast<void*>(static_cast<uintptr_t>(door->watch_->Open(fd)));
  }
};

absl::StatusOr<std::unique_ptr<HttpDoor>> HttpDoor::Start(const HttpDoorOptions& options,
                                                          const InferenceParts& core,
                                                          const RequestBounds& bounds,
                                                          const v1::Model& model,
                                                          ChatTemplate chat_template) {
  std::unique_ptr<HttpDoor> door(
      new HttpDoor(options, core, bounds, model, std::move(chat_template)));
  absl::StatusOr<std::unique_ptr<Listener>> listener =
      Listener::Bind(options.listen, options.connections);
  if (!listener.ok()) return listener.status();
  door->listener_ = *std::move(listener);
  const absl::Status status = door->StartMhd();
  if (!status.ok()) return status;
  door->listener_->Start([raw = door.get()](int fd) { raw->HandleConnection(fd); });
  return door;
}

HttpDoor::HttpDoor(const HttpDoorOptions& options, const InferenceParts& core,
                   const RequestBounds& bounds, const v1::Model& model, ChatTemplate chat_template)
    : options_(options),
      parts_{core, bounds, absl::StrCat("fp_", model.fingerprint())},
      chat_template_(std::move(chat_template)),
      model_json_(ModelJson(model, absl::ToUnixSeconds(absl::Now()))),
      watch_(std::make_unique<ConnectionWatch>(core.clock, options.request_bound)) {}

// poll, not epoll: with libmicrohttpd 0.9.75's edges an end of the peer that comes together with
// its last bytes is not seen before the timeout. Suspended connections cost poll nothing.
absl::Status HttpDoor::StartMhd() {
  const unsigned flags = MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
                         MHD_USE_NO_LISTEN_SOCKET;
  const MHD_OptionItem items[] = {
      {MHD_OPTION_CONNECTION_LIMIT,
       static_cast<intptr_t>(options_.connections.max_connections + kClosingConnections), nullptr},
      {MHD_OPTION_CONNECTION_MEMORY_LIMIT,
       static_cast<intptr_t>(options_.max_header_bytes + kBufferBytes), nullptr},
      {MHD_OPTION_CONNECTION_TIMEOUT,
       static_cast<intptr_t>(absl::ToInt64Seconds(options_.request_bound)), nullptr},
      {MHD_OPTION_NOTIFY_COMPLETED, reinterpret_cast<intptr_t>(&HttpCallbacks::Completed), this},
      {MHD_OPTION_NOTIFY_CONNECTION, reinterpret_cast<intptr_t>(&HttpCallbacks::Connection), this},
      {MHD_OPTION_END, 0, nullptr}};
  mhd_ = MHD_start_daemon(flags, 0, nullptr, nullptr, &HttpCallbacks::Access, this,
                          MHD_OPTION_ARRAY, items, MHD_OPTION_END);
  if (mhd_ == nullptr) return absl::InternalError("the HTTP server does not start");
  return absl::OkStatus();
}

// A peer that is lost without a word is found out by the system's probes. What it has not taken
// waits in the ring, not in megabytes of the socket's.
void HttpDoor::HandleConnection(int fd) {
  const auto seconds = [](absl::Duration duration) {
    return static_cast<int>(std::clamp<int64_t>(absl::ToInt64Seconds(duration), 1, 32767));
  };
  const int on = 1;
  const int idle = seconds(options_.keepalive_time);
  const int answer = seconds(options_.keepalive_timeout);
  const int probes = 1;
  const int unsent = kUnsentBytes;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &answer, sizeof(answer));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
  setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    close(fd);
    return;
  }
  MHD_add_connection(mhd_, fd, reinterpret_cast<sockaddr*>(&address), size);  // owns it now
}

void HttpDoor::Stop() {
  if (mhd_ == nullptr) return;
  Drain();
  listener_->Stop();
  if (!WaitForNone(kFlush)) {
    for (const auto& exchange : exchanges()) exchange->Cut();
    WaitForNone(kFlush);
  }
  MHD_stop_daemon(std::exchange(mhd_, nullptr));
}

// ---- A request comes in ----

void HttpDoor::CheckHead(MHD_Connection* connection, HttpRequest* request) {
  if (request->refusal.has_value() || request->route == Route::kPage) return;
  absl::StatusOr<TenantRef> tenant = TenantOf(connection);
  if (!tenant.ok()) {
    return request->Refuse(ToHttpError(tenant.status(), false),
                           static_cast<grpc::StatusCode>(tenant.status().code()));
  }
  request->tenant = *std::move(tenant);
  if (!IsCall(request->route)) return;
  // Also keeps pages of other origins out: a browser asks first, and is not answered.
  if (!IsJson(HeaderOf(connection, MHD_HTTP_HEADER_CONTENT_TYPE))) {
    return request->Refuse(
        BadRequest(415, "the Content-Type must be application/json", "unsupported_media_type"),
        grpc::StatusCode::INVALID_ARGUMENT);
  }
}

absl::StatusOr<TenantRef> HttpDoor::TenantOf(MHD_Connection* connection) const {
  Credentials credentials;
  const auto add = [](void* cls, MHD_ValueKind, const char* name, const char* value) {
    if (absl::EqualsIgnoreCase(name, "authorization")) {
      static_cast<Credentials*>(cls)->authorization.push_back(value == nullptr ? "" : value);
    }
    return MHD_YES;
  };
  MHD_get_connection_values(connection, MHD_HEADER_KIND, add, &credentials);
  const std::string peer = PeerOf(connection);
  credentials.peer = peer;
  return parts_.core.auth->Check(credentials);
}

void HttpDoor::AddBody(HttpRequest* request, absl::string_view bytes) {
  if (request->refusal.has_value()) return;
  const int64_t size = static_cast<int64_t>(bytes.size());
  const int64_t most = parts_.bounds.max_message_bytes;
  if (static_cast<int64_t>(request->body.size()) + size > most) {
    request->Refuse(
        BadRequest(413, absl::StrCat("the body has more than max_message_bytes (", most, ")"),
                   "request_too_large"),
        grpc::StatusCode::RESOURCE_EXHAUSTED);
    return;
  }
  if (body_bytes_.fetch_add(size, std::memory_order_relaxed) + size > kMaxBodies * most) {
    body_bytes_.fetch_sub(size, std::memory_order_relaxed);
    const absl::Status status = absl::ResourceExhaustedError("too many large requests come in");
    request->Refuse(ToHttpError(status, false), grpc::StatusCode::RESOURCE_EXHAUSTED);
    return;
  }
  request->reserved.fetch_add(size, std::memory_order_relaxed);
  request->body.append(bytes.data(), bytes.size());
  return;
}

void HttpDoor::ReleaseBody(HttpRequest* request) {
  body_bytes_.fetch_sub(request->reserved.exchange(0), std::memory_order_relaxed);
}

// ---- It is here ----

void HttpDoor::Dispatch(const std::shared_ptr<HttpRequest>& request) {
  watch_->Serve(request->connection_id, [weak = std::weak_ptr<HttpExchange>(request->exchange)] {
    if (const std::shared_ptr<HttpExchange> exchange = weak.lock()) exchange->Cut();
  });
  if (request->refusal.has_value()) {
    return Answer(request.get(), *std::move(request->refusal), request->refusal_code);
  }
  HttpReply reply;
  switch (request->route) {
    case Route::kPage:
      return request->exchange->Reply(PageReply());
    case Route::kModels:
      reply.body = absl::StrCat("{\"object\":\"list\",\"data\":[", model_json_, "]}");
      return Answer(request.get(), std::move(reply), grpc::StatusCode::OK);
    case Route::kModel: {
      const absl::string_view name = absl::string_view(request->path).substr(kModelPrefix.size());
      const absl::Status status = CheckModelName(name, parts_.bounds);
      if (!status.ok()) {
        return RefuseCall(parts_.core, request->exchange.get(), request->record, status, false);
      }
      reply.body = model_json_;
      return Answer(request.get(), std::move(reply), grpc::StatusCode::OK);
    }
    case Route::kCompletions:
    case Route::kChat:
      return StartCall(request);
    case Route::kUnknown:
      return;  // refused
  }
}

void HttpDoor::Answer(HttpRequest* request, HttpReply reply, grpc::StatusCode code) {
  if (request->route != Route::kUnknown) {
    parts_.core.stats->Done(request->record, code, parts_.core.clock->Now());
  }
  request->exchange->Reply(std::move(reply));
}

void HttpDoor::StartCall(const std::shared_ptr<HttpRequest>& request) {
  const auto refuse = [&](const absl::Status& status) {
    RefuseCall(parts_.core, request->exchange.get(), request->record, status, false);
  };
  if (draining()) return refuse(absl::UnavailableError("the daemon is shutting down"));
  if (request->body.size() <= kInlineBytes) return RunCall(request.get());
  if (!parts_.core.worker->Post([this, request] { RunCall(request.get()); })) {
    refuse(absl::ResourceExhaustedError("too many large texts wait to be encoded"));
  }
}

void HttpDoor::RunCall(HttpRequest* request) {
  const bool chat = request->route == Route::kChat;
  const absl::StatusOr<OpenAiRequest> parsed =
      chat ? ParseChatCompletion(request->body, chat_template_, parts_.bounds.max_stop_strings)
           : ParseCompletion(request->body, parts_.bounds.max_sequences);
  request->body = std::string();
  ReleaseBody(request);
  if (!parsed.ok()) {
    return RefuseCall(parts_.core, request->exchange.get(), request->record, parsed.status(), chat);
  }
  OpenAiCall::Start(&parts_, request->exchange, *request->tenant, *parsed, request->record);
}

// ---- Those that are open ----

void HttpDoor::Add(std::shared_ptr<HttpExchange> exchange) {
  MutexLock lock(&mutex_);
  exchanges_.insert(std::move(exchange));
}

void HttpDoor::Remove(const std::shared_ptr<HttpExchange>& exchange) {
  MutexLock lock(&mutex_);
  exchanges_.erase(exchange);
}

std::vector<std::shared_ptr<HttpExchange>> HttpDoor::exchanges() {
  MutexLock lock(&mutex_);
  return {exchanges_.begin(), exchanges_.end()};
}

bool HttpDoor::WaitForNone(absl::Duration bound) {
  const absl::Duration end = parts_.core.clock->Now() + bound;
  while (!exchanges().empty()) {
    if (parts_.core.clock->Now() >= end) return false;
    std::this_thread::sleep_for(kPollInterval);
  }
  return true;
}

}  // namespace sluice
