// The operator's HTTP port: /metrics, /healthz (the process is alive and its device well) and
// /readyz (send traffic).
#ifndef SLUICE_SERVER_ADMIN_HTTP_H_
#define SLUICE_SERVER_ADMIN_HTTP_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/clock.h"
#include "server/address.h"
#include "server/http/http_server.h"
#include "server/worker.h"

namespace sluice {

// The functions that give the port's answers.
struct AdminHandlers {
  std::function<std::string()> metrics;   // called on a thread of its own
  std::function<absl::Status()> healthz;  // called on the port's thread: it never waits
  std::function<absl::Status()> readyz;   // the same
};

// Connections and requests are few and bounded, so that probes are answered beside peers that are
// slow, silent or many. Scrapes have a thread of their own.
class AdminHttp {
 public:
  // Listens on `address`, port 0 for a free one. FAILED_PRECONDITION with the address and the
  // reason. Clock and statistics outlive it.
  static absl::StatusOr<std::unique_ptr<AdminHttp>> Start(const Address& address,
                                                          const Clock* clock,
                                                          HttpServerStats* stats,
                                                          AdminHandlers handlers);
  // Answers what has been asked, and stops.
  ~AdminHttp();

  const Address& address() const { return server_->address(); }

 private:
  explicit AdminHttp(AdminHandlers handlers);

  HttpServer::BodyHandler OnRequest(const std::shared_ptr<HttpExchange>& exchange);
  void Serve(const std::shared_ptr<HttpExchange>& exchange);
  void Scrape(const std::shared_ptr<HttpExchange>& exchange);

  const AdminHandlers handlers_;
  std::unique_ptr<Worker> scrapes_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_ADMIN_HTTP_H_
