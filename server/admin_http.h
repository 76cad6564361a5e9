// The operator's HTTP port: /metrics, /healthz (the process is alive and its device well) and
// /readyz (send traffic).
#ifndef SLUICE_SERVER_ADMIN_HTTP_H_
#define SLUICE_SERVER_ADMIN_HTTP_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice {

// What the port answers with. Called on its own threads.
struct AdminHandlers {
  std::function<std::string()> metrics;
  std::function<absl::Status()> healthz;
  std::function<absl::Status()> readyz;
};

class AdminHttp {
 public:
  // Listens on HOST:PORT, port 0 for a free one. FAILED_PRECONDITION with the address and the
  // reason.
  static absl::StatusOr<std::unique_ptr<AdminHttp>> Start(const std::string& address,
                                                          AdminHandlers handlers);
  // Answers what has been asked, and stops.
  ~AdminHttp();

  // HOST:PORT in use.
  const std::string& address() const { return address_; }

 private:
  class Impl;
  AdminHttp() = default;

  std::unique_ptr<Impl> impl_;
  std::string address_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_ADMIN_HTTP_H_
