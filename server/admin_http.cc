#include "server/admin_http.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr int32_t kMaxConnections = 64;
constexpr size_t kMaxHeadBytes = 8192;
constexpr int64_t kMaxBodyBytes = 1024;
constexpr absl::Duration kRequestBound = absl::Seconds(5);
constexpr size_t kMaxScrapes = 16;

HttpReply Text(int status, std::string text) {
  HttpReply reply;
  reply.status = status;
  reply.content_type = "text/plain; charset=utf-8";
  reply.body = absl::StrCat(text, "\n");
  return reply;
}

HttpReply Probe(const absl::Status& status) {
  return status.ok() ? Text(200, "ok") : Text(503, std::string(status.message()));
}

HttpServerOptions OptionsFor(const Address& address) {
  HttpServerOptions options;
  options.listen = address;
  options.connections.bounds.max_connections = kMaxConnections;
  options.max_head_bytes = kMaxHeadBytes;
  options.max_body_bytes = kMaxBodyBytes;
  options.max_bodies_bytes = kMaxConnections * kMaxBodyBytes;
  options.head_bound = kRequestBound;
  options.request_bound = kRequestBound;
  options.write_bound = kRequestBound;
  options.evict_slow_readers = true;
  options.half_close_cancels = false;  // nc does that, and waits for its answer
  return options;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdminHttp>> AdminHttp::Start(const Address& address,
                                                            const Clock* clock,
                                                            HttpServerStats* stats,
                                                            AdminHandlers handlers) {
  std::unique_ptr<AdminHttp> admin(new AdminHttp(std::move(handlers)));
  HttpServer::Handlers served;
  served.on_request = [raw = admin.get()](const std::shared_ptr<HttpExchange>& exchange) {
    return raw->OnRequest(exchange);
  };
  served.on_fault = [](const HttpFault& fault) { return Text(fault.status, fault.why); };
  absl::StatusOr<std::unique_ptr<HttpServer>> server =
      HttpServer::Start(OptionsFor(address), clock, stats, std::move(served));
  if (!server.ok()) return server.status();
  admin->server_ = *std::move(server);
  return admin;
}

AdminHttp::AdminHttp(AdminHandlers handlers)
    : handlers_(std::move(handlers)), scrapes_(std::make_unique<Worker>(kMaxScrapes)) {}

// A scrape that runs uses its exchange, so the server is destroyed last.
AdminHttp::~AdminHttp() {
  if (server_ != nullptr) server_->Stop();
  scrapes_.reset();
}

HttpServer::BodyHandler AdminHttp::OnRequest(const std::shared_ptr<HttpExchange>& exchange) {
  const HttpHead& head = exchange->head();
  if (head.path != "/metrics" && head.path != "/healthz" && head.path != "/readyz") {
    exchange->Reply(Text(404, "there is /metrics, /healthz and /readyz here"));
    return nullptr;
  }
  if (head.method != "GET" && head.method != "HEAD") {
    HttpReply reply = Text(405, "this path takes GET and HEAD");
    reply.headers.emplace_back("Allow", "GET, HEAD");
    exchange->Reply(std::move(reply));
    return nullptr;
  }
  exchange->CountAsCall();
  return [this, exchange](const absl::StatusOr<HttpBody>& body) {
    if (body.ok()) return Serve(exchange);
    exchange->Reply(Text(413, "this path takes no body"));
  };
}

void AdminHttp::Serve(const std::shared_ptr<HttpExchange>& exchange) {
  const std::string& path = exchange->head().path;
  if (path == "/healthz") return exchange->Reply(Probe(handlers_.healthz()));
  if (path == "/readyz") return exchange->Reply(Probe(handlers_.readyz()));
  if (!scrapes_->Post([this, exchange] { Scrape(exchange); })) {
    exchange->Reply(Text(503, "too many scrapes wait"));
  }
}

void AdminHttp::Scrape(const std::shared_ptr<HttpExchange>& exchange) {
  HttpReply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  reply.body = handlers_.metrics();
  exchange->Reply(std::move(reply));
}

}  // namespace sluice
