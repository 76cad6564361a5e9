#include "server/http/http_door.h"

#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "server/http/openai_model.h"
#include "server/http/openai_request.h"
#include "server/http/openai_session.h"
#include "server/http/openapi.h"
#include "server/http/page.h"
#include "server/http/tokens_json.h"
#include "server/log.h"
#include "server/options.h"
#include "server/start_call.h"
#include "server/status.h"
#include "server/trace.h"

namespace sluice {
namespace {

// Parsing more than this takes long enough for other connections to notice.
constexpr size_t kInlineBytes = 64 * 1024;
// Bodies that are not parsed yet may take as much memory as this many of the largest allowed.
constexpr int64_t kMaxBodies = 64;

constexpr absl::string_view kModels = "/v1/models/";

// Names of fields that are told as unknown.
constexpr size_t kMaxToldFields = 16;
constexpr size_t kMaxToldBytes = 64;

// More than one slash counts as one, and one at the end as none.
std::string NormalPath(absl::string_view path) {
  std::string out;
  for (const char c : path) {
    if (c != '/' || out.empty() || out.back() != '/') out.push_back(c);
  }
  if (out.size() > 1 && out.back() == '/') out.pop_back();
  return out;
}

// Clients may not see that a field meant nothing, so that its name comes back.
void TellUnknownFields(const std::vector<std::string>& names, HttpExchange* exchange) {
  std::vector<std::string> told;
  for (const std::string& name : names) {
    if (told.size() == kMaxToldFields) break;
    told.push_back(absl::CHexEscape(absl::string_view(name).substr(0, kMaxToldBytes)));
  }
  if (!told.empty()) exchange->AddHeader("x-sluice-ignored-fields", absl::StrJoin(told, ", "));
}

// More than one traceparent counts as none.
TraceSpan SpanOf(const HttpHead& head) {
  const std::vector<absl::string_view> found = head.FindAll(kTraceparent);
  return found.size() == 1 ? StartSpan(found.front()) : TraceSpan();
}

constexpr char kJson[] = "application/json";
constexpr char kBytes[] = "application/octet-stream";

bool IsType(absl::string_view content_type, absl::string_view wanted) {
  return absl::EqualsIgnoreCase(
      absl::StripAsciiWhitespace(content_type.substr(0, content_type.find(';'))), wanted);
}

// True if `path` is the pattern's, in which "{id}" stands for one segment, which `id` gets.
bool Matches(absl::string_view pattern, absl::string_view path, std::string* id) {
  constexpr absl::string_view kId = "{id}";
  const size_t at = pattern.find(kId);
  if (at == absl::string_view::npos) return path == pattern;
  const absl::string_view behind = pattern.substr(at + kId.size());
  if (path.size() < at + behind.size() || path.substr(0, at) != pattern.substr(0, at) ||
      !absl::EndsWith(path, behind)) {
    return false;
  }
  const absl::string_view found = path.substr(at, path.size() - at - behind.size());
  if (found.empty() || absl::StrContains(found, '/')) return false;
  *id = std::string(found);
  return true;
}

}  // namespace

// A request on its way to its answer.
struct HttpDoor::Request {
  std::shared_ptr<HttpExchange> exchange;
  std::string path;
  const Route* route = nullptr;  // null: there is nothing at its path
  CallRecord record;
  std::string id;  // that its path has for {id}
  TenantRef tenant;
  HttpBody body;
};

struct HttpDoor::Route {
  absl::string_view path;
  bool prefix;  // whatever begins with `path`
  const char* method;
  Method counted_as;
  void (HttpDoor::*serve)(const RequestRef&);
  bool open = false;            // to everybody, without credentials
  const char* takes = nullptr;  // the Content-Type of its body; null: it takes none
  bool takes_at_once = false;   // the body is used as it comes
};

struct HttpDoor::Refusal {
  HttpError error;
  grpc::StatusCode code;
  std::pair<std::string, std::string> header{};
};

bool HttpDoor::IsGet(const Route& route) { return absl::string_view(route.method) == "GET"; }

absl::Span<const HttpDoor::Route> HttpDoor::Routes() {
  static constexpr Route kRoutes[] = {
      {.path = "/",
       .prefix = false,
       .method = "GET",
       .counted_as = Method::kModels,
       .serve = &HttpDoor::ServePage,
       .open = true},
      {.path = "/openapi.json",
       .prefix = false,
       .method = "GET",
       .counted_as = Method::kModels,
       .serve = &HttpDoor::ServeOpenApi,
       .open = true},
      {.path = "/v1/models",
       .prefix = false,
       .method = "GET",
       .counted_as = Method::kModels,
       .serve = &HttpDoor::ServeModels},
      {.path = kModels,
       .prefix = true,
       .method = "GET",
       .counted_as = Method::kModels,
       .serve = &HttpDoor::ServeModel},
      {.path = "/health",
       .prefix = false,
       .method = "GET",
       .counted_as = Method::kModels,
       .serve = &HttpDoor::ServeHealth,
       .open = true},
      {.path = "/version",
       .prefix = false,
       .method = "GET",
       .counted_as = Method::kModels,
       .serve = &HttpDoor::ServeVersion,
       .open = true},
      {.path = "/metrics",
       .prefix = false,
       .method = "GET",
       .counted_as = Method::kModels,
       .serve = &HttpDoor::ServeMetrics},
      {.path = "/tokenizer_info",
       .prefix = false,
       .method = "GET",
       .counted_as = Method::kModels,
       .serve = &HttpDoor::ServeTokenizerInfo},
      {.path = "/tokenize",
       .prefix = false,
       .method = "POST",
       .counted_as = Method::kTokenize,
       .serve = &HttpDoor::ServeTokens,
       .takes = kJson},
      {.path = "/detokenize",
       .prefix = false,
       .method = "POST",
       .counted_as = Method::kDetokenize,
       .serve = &HttpDoor::ServeTokens,
       .takes = kJson},
      {.path = "/v1/completions",
       .prefix = false,
       .method = "POST",
       .counted_as = Method::kCompletions,
       .serve = &HttpDoor::ServeCall,
       .takes = kJson},
      {.path = "/v1/chat/completions",
       .prefix = false,
       .method = "POST",
       .counted_as = Method::kChatCompletions,
       .serve = &HttpDoor::ServeCall,
       .takes = kJson},
      {.path = "/v1/sessions",
       .prefix = false,
       .method = "GET",
       .counted_as = Method::kListSessions,
       .serve = &HttpDoor::ServeSession},
      {.path = "/v1/sessions",
       .prefix = false,
       .method = "POST",
       .counted_as = Method::kCreateSession,
       .serve = &HttpDoor::ServeSession,
       .takes = kJson},
      {.path = "/v1/sessions/import",
       .prefix = false,
       .method = "POST",
       .counted_as = Method::kImportSession,
       .serve = &HttpDoor::ServeSession,
       .takes = kBytes,
       .takes_at_once = true},
      {.path = "/v1/sessions/{id}",
       .prefix = false,
       .method = "GET",
       .counted_as = Method::kGetSession,
       .serve = &HttpDoor::ServeSession},
      {.path = "/v1/sessions/{id}",
       .prefix = false,
       .method = "PATCH",
       .counted_as = Method::kUpdateSession,
       .serve = &HttpDoor::ServeSession,
       .takes = kJson},
      {.path = "/v1/sessions/{id}",
       .prefix = false,
       .method = "DELETE",
       .counted_as = Method::kDeleteSession,
       .serve = &HttpDoor::ServeSession},
      {.path = "/v1/sessions/{id}/fork",
       .prefix = false,
       .method = "POST",
       .counted_as = Method::kForkSession,
       .serve = &HttpDoor::ServeSession,
       .takes = kJson},
      {.path = "/v1/sessions/{id}/export",
       .prefix = false,
       .method = "GET",
       .counted_as = Method::kExportSession,
       .serve = &HttpDoor::ServeSession},
  };
  return kRoutes;
}

const HttpDoor::Route* HttpDoor::RouteOf(absl::string_view method, absl::string_view path,
                                         std::string* id) {
  const Route* found = nullptr;
  for (const Route& route : Routes()) {
    if (!(route.prefix ? absl::StartsWith(path, route.path) : Matches(route.path, path, id))) {
      continue;
    }
    if (method == route.method || (method == "HEAD" && IsGet(route))) return &route;
    if (found == nullptr) found = &route;
  }
  return found;
}

std::string HttpDoor::MethodsOf(absl::string_view path) {
  std::string out;
  std::string id;
  for (const Route& route : Routes()) {
    if (!(route.prefix ? absl::StartsWith(path, route.path) : Matches(route.path, path, &id))) {
      continue;
    }
    absl::StrAppend(&out, out.empty() ? "" : ", ", route.method, IsGet(route) ? ", HEAD" : "");
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> HttpDoor::Paths() {
  std::vector<std::pair<std::string, std::string>> out;
  for (const Route& route : Routes()) {
    out.emplace_back(route.method, absl::StrCat(route.path, route.prefix ? "{id}" : ""));
  }
  return out;
}

absl::StatusOr<std::unique_ptr<HttpDoor>> HttpDoor::Start(
    HttpServerOptions options, HttpServerStats* stats, const InferenceParts& core,
    const RequestBounds& bounds, const v1::Model& model, HttpDoorParts parts) {
  std::unique_ptr<HttpDoor> door(new HttpDoor(core, bounds, model, std::move(parts)));
  options.max_body_bytes = bounds.max_message_bytes;
  options.max_bodies_bytes = kMaxBodies * bounds.max_message_bytes;
  HttpServer::Handlers handlers;
  handlers.on_request = [raw = door.get()](const std::shared_ptr<HttpExchange>& exchange) {
    return raw->OnRequest(exchange);
  };
  handlers.on_fault = [](const HttpFault& fault) {
    return ErrorReply(BadRequest(fault.status, fault.why, "bad_request"));
  };
  absl::StatusOr<std::unique_ptr<HttpServer>> server =
      HttpServer::Start(options, core.clock, stats, std::move(handlers));
  if (!server.ok()) return server.status();
  door->server_ = *std::move(server);
  return door;
}

HttpDoor::HttpDoor(const InferenceParts& core, const RequestBounds& bounds, const v1::Model& model,
                   HttpDoorParts parts)
    : parts_{core, bounds, absl::StrCat("fp_", model.fingerprint())},
      served_(std::move(parts)),
      model_(model),
      model_json_(ModelJson(model, absl::ToUnixSeconds(absl::Now()))),
      sessions_(served_.sessions, &parts_.core) {}

void HttpDoor::Drain() {
  draining_.store(true, std::memory_order_relaxed);
  server_->Drain();
}

// ---- A request comes in ----

HttpServer::BodyHandler HttpDoor::OnRequest(const std::shared_ptr<HttpExchange>& exchange) {
  const RequestRef request = std::make_shared<Request>();
  request->exchange = exchange;
  request->path = NormalPath(exchange->head().path);
  request->route = RouteOf(exchange->head().method, request->path, &request->id);
  if (request->route != nullptr && request->route->serve == &HttpDoor::ServeMetrics &&
      served_.metrics == nullptr) {
    request->route = nullptr;
  }
  CallRecord& record = request->record;
  record.method = request->route == nullptr ? Method::kModels : request->route->counted_as;
  record.request_id = RequestIdFrom(std::string(exchange->head().Find("x-request-id")));
  record.started = parts_.core.clock->Now();
  record.span = SpanOf(exchange->head());
  exchange->AddHeader("x-request-id", record.request_id);
  if (record.span.traced()) exchange->AddHeader(kTraceparent, record.span.Header());
  for (const auto& [name, value] : served_.origins.AnswerFields(exchange->head())) {
    exchange->AddHeader(name, value);
  }
  if (const std::optional<Refusal> refusal = CheckHead(request.get())) {
    HttpReply reply = ErrorReply(refusal->error);
    if (!refusal->header.first.empty()) reply.headers.push_back(refusal->header);
    Answer(*request, std::move(reply), refusal->code);
    return nullptr;
  }
  if (OriginPolicy::IsPreflight(exchange->head())) {
    exchange->Reply(OriginPolicy::Preflight(exchange->head(), MethodsOf(request->path)));
    return nullptr;
  }
  if (request->route->takes_at_once) {
    return sessions_.Import({exchange, request->tenant, request->record, request->id});
  }
  return [this, request](absl::StatusOr<HttpBody> body) { OnBody(request, std::move(body)); };
}

std::optional<HttpDoor::Refusal> HttpDoor::CheckHead(Request* request) const {
  const HttpHead& head = request->exchange->head();
  const Route* route = request->route;
  if (std::optional<HttpError> error = served_.origins.Check(head)) {
    return Refusal{*std::move(error), grpc::StatusCode::PERMISSION_DENIED};
  }
  if (route == nullptr) {
    return Refusal{BadRequest(404, "there is nothing at this path", "not_found"),
                   grpc::StatusCode::NOT_FOUND};
  }
  if (OriginPolicy::IsPreflight(head)) return std::nullopt;
  if (head.method != route->method && !(head.method == "HEAD" && IsGet(*route))) {
    return Refusal{BadRequest(405, "this path does not take this method", "method_not_allowed"),
                   grpc::StatusCode::UNIMPLEMENTED,
                   {"Allow", MethodsOf(request->path)}};
  }
  if (route->open) return std::nullopt;
  absl::StatusOr<TenantRef> tenant = TenantOf(*request->exchange);
  if (!tenant.ok()) {
    return Refusal{ToHttpError(tenant.status(), false),
                   static_cast<grpc::StatusCode>(tenant.status().code())};
  }
  request->tenant = *std::move(tenant);
  request->exchange->CountAsCall();
  if (route->serve == &HttpDoor::ServeSession && draining_.load(std::memory_order_relaxed)) {
    const absl::Status ends = absl::UnavailableError("the daemon is shutting down");
    return Refusal{ToHttpError(ends, false), grpc::StatusCode::UNAVAILABLE};
  }
  if (route->takes == nullptr) return std::nullopt;
  // A page of another origin cannot say so without a preflight.
  if (!IsType(head.Find("content-type"), route->takes)) {
    return Refusal{BadRequest(415, absl::StrCat("the Content-Type must be ", route->takes),
                              "unsupported_media_type"),
                   grpc::StatusCode::INVALID_ARGUMENT};
  }
  for (const absl::string_view coding : head.FindAll("content-encoding")) {
    if (absl::EqualsIgnoreCase(coding, "identity")) continue;
    return Refusal{BadRequest(415,
                              absl::StrCat("the Content-Encoding '", coding.substr(0, 64),
                                           "' is not supported: send the body as it is"),
                              "unsupported_content_encoding"),
                   grpc::StatusCode::INVALID_ARGUMENT,
                   {"Accept-Encoding", "identity"}};
  }
  return std::nullopt;
}

absl::StatusOr<TenantRef> HttpDoor::TenantOf(const HttpExchange& exchange) const {
  Credentials credentials;
  credentials.authorization = exchange.head().FindAll("authorization");
  credentials.peer = exchange.peer();
  return parts_.core.auth->Check(credentials);
}

void HttpDoor::OnBody(const RequestRef& request, absl::StatusOr<HttpBody> body) {
  if (absl::IsOutOfRange(body.status())) {
    const std::string why = absl::StrCat("the body has more than max_message_bytes (",
                                         parts_.bounds.max_message_bytes, ")");
    return Answer(*request, ErrorReply(BadRequest(413, why, "request_too_large")),
                  grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  if (!body.ok()) return Refuse(*request, body.status());
  request->body = *std::move(body);
  (this->*request->route->serve)(request);
}

void HttpDoor::Answer(const Request& request, HttpReply reply, grpc::StatusCode code) {
  if (request.route != nullptr) {
    parts_.core.stats->Done(request.record, code, parts_.core.clock->Now());
  }
  request.exchange->Reply(std::move(reply));
}

void HttpDoor::Refuse(const Request& request, const absl::Status& status) {
  RefuseCall(parts_.core, request.exchange.get(), request.record, status, false);
}

// ---- It is here ----

void HttpDoor::ServePage(const RequestRef& request) {
  HttpReply reply;
  reply.content_type = "text/html; charset=utf-8";
  reply.body = std::string(Page());
  reply.headers.emplace_back("Content-Security-Policy", PagePolicy());
  reply.headers.emplace_back("X-Content-Type-Options", "nosniff");
  reply.headers.emplace_back("Referrer-Policy", "no-referrer");
  request->exchange->Reply(std::move(reply));
}

void HttpDoor::ServeOpenApi(const RequestRef& request) {
  HttpReply reply;
  reply.body = std::string(OpenApi());
  request->exchange->Reply(std::move(reply));
}

void HttpDoor::ServeModels(const RequestRef& request) {
  HttpReply reply;
  reply.body = absl::StrCat("{\"object\":\"list\",\"data\":[", model_json_, "]}");
  Answer(*request, std::move(reply), grpc::StatusCode::OK);
}

void HttpDoor::ServeModel(const RequestRef& request) {
  const absl::string_view name = absl::string_view(request->path).substr(kModels.size());
  const absl::Status status = CheckModelName(name, parts_.bounds);
  if (!status.ok()) return Refuse(*request, status);
  HttpReply reply;
  reply.body = model_json_;
  Answer(*request, std::move(reply), grpc::StatusCode::OK);
}

void HttpDoor::ServeSession(const RequestRef& request) {
  sessions_.Serve({request->exchange, request->tenant, request->record, request->id},
                  request->body.text());
}

void HttpDoor::ServeHealth(const RequestRef& request) {
  HttpReply reply;
  reply.status = served_.serving() ? 200 : 503;
  reply.body = served_.serving() ? "{\"status\":\"ok\"}" : "{\"status\":\"not ready\"}";
  request->exchange->Reply(std::move(reply));
}

void HttpDoor::ServeVersion(const RequestRef& request) {
  HttpReply reply;
  reply.body = absl::StrCat("{\"version\":\"", Version(), "\"}");
  request->exchange->Reply(std::move(reply));
}

void HttpDoor::ServeMetrics(const RequestRef& request) {
  const bool posted = parts_.core.worker->Post([this, request] {
    HttpReply reply;
    reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
    reply.body = served_.metrics();
    Answer(*request, std::move(reply), grpc::StatusCode::OK);
  });
  if (!posted) Refuse(*request, absl::ResourceExhaustedError("too many scrapes wait"));
}

void HttpDoor::ServeTokenizerInfo(const RequestRef& request) {
  if (!parts_.core.tokenizer->has_text()) {
    return Refuse(
        *request,
        WithReason(absl::FailedPreconditionError("this daemon has no tokenizer"), "NO_TOKENIZER"));
  }
  HttpReply reply;
  reply.body = TokenizerInfoJson(*parts_.core.tokenizer, model_);
  Answer(*request, std::move(reply), grpc::StatusCode::OK);
}

void HttpDoor::ServeTokens(const RequestRef& request) { Run(request, &HttpDoor::RunTokens); }

void HttpDoor::ServeCall(const RequestRef& request) { Run(request, &HttpDoor::RunCall); }

void HttpDoor::Run(const RequestRef& request, void (HttpDoor::*run)(Request*)) {
  if (draining_.load(std::memory_order_relaxed)) {
    return Refuse(*request, absl::UnavailableError("the daemon is shutting down"));
  }
  if (request->body.text().size() <= kInlineBytes) return (this->*run)(request.get());
  if (!parts_.core.worker->Post([this, request, run] { (this->*run)(request.get()); })) {
    Refuse(*request, absl::ResourceExhaustedError("too many large texts wait to be encoded"));
  }
}

void HttpDoor::RunTokens(Request* request) {
  const std::string& body = request->body.text();
  const absl::StatusOr<std::string> answer =
      request->record.method == Method::kTokenize
          ? TokenizeJson(body, served_.chat_template, parts_.bounds, *parts_.core.tokenizer, model_)
          : DetokenizeJson(body, parts_.bounds, *parts_.core.tokenizer);
  if (!answer.ok()) return Refuse(*request, answer.status());
  HttpReply reply;
  reply.body = *answer;
  Answer(*request, std::move(reply), grpc::StatusCode::OK);
}

void HttpDoor::RunCall(Request* request) {
  const bool chat = request->record.method == Method::kChatCompletions;
  absl::StatusOr<OpenAiRequest> parsed =
      chat ? ParseChatCompletion(request->body.text(), served_.chat_template,
                                 parts_.bounds.max_stop_strings, served_.sampling)
           : ParseCompletion(request->body.text(), parts_.bounds.max_sequences, served_.sampling);
  request->body = HttpBody();
  absl::Status status = parsed.status();
  if (parsed.ok()) status = TakeSessionHeaders(request->exchange->head(), &*parsed);
  if (!status.ok()) {
    return RefuseCall(parts_.core, request->exchange.get(), request->record, status, chat);
  }
  TellUnknownFields(parsed->unknown_fields, request->exchange.get());
  if (!parsed->prompts.front().session_id().empty()) {
    return StartOnSession(&parts_, served_.sessions, request->exchange, request->tenant,
                          served_.chat_template, *std::move(parsed), request->record);
  }
  OpenAiCall::Start(&parts_, request->exchange, request->tenant, *parsed, request->record);
}

}  // namespace sluice
