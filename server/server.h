// The daemon: everything it is made of, in the order of construction. No logic but starting and
// stopping.
#ifndef SLUICE_SERVER_SERVER_H_
#define SLUICE_SERVER_SERVER_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/address.h"
#include "server/admin_http.h"
#include "server/auth.h"
#include "server/call_stats.h"
#include "server/core/admission.h"
#include "server/core/device_thread.h"
#include "server/core/drain.h"
#include "server/core/emitter.h"
#include "server/core/steady_clock.h"
#include "server/core/store_thread.h"
#include "server/core/watchdog.h"
#include "server/health.h"
#include "server/http/http_door.h"
#include "server/inference_service.h"
#include "server/listener.h"
#include "server/memory_guard.h"
#include "server/metrics.h"
#include "server/model_host.h"
#include "server/options.h"
#include "server/reflection.h"
#include "server/session_calls.h"
#include "server/session_service.h"
#include "server/tls.h"
#include "server/worker.h"

namespace sluice {

// Callbacks that end the process. Each is called once, from another thread.
struct DeviceEvents {
  // The device has failed: nothing can be computed any more.
  std::function<void(absl::Status)> on_fault;
  // A step has not ended within its bound: the device thread cannot be stopped, so the process must
  // end without waiting for it.
  std::function<void()> on_stuck;
};

class Server {
 public:
  // Loads the model and serves, with every thread started. Errors as LoadModel's,
  // FAILED_PRECONDITION for an address, RESOURCE_EXHAUSTED where threads cannot be had.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options,
                                                       const DeviceEvents& events = {});
  // The number of threads that Start takes and that gRPC may start later. CheckThreads needs it
  // before the first of them starts.
  static int ThreadsOf(const ServerOptions& options);
  ~Server();

  // Not ready from now on; new calls are UNAVAILABLE; running ones may finish until the drain
  // timeout, the rest gets UNAVAILABLE; then sessions are written, until the flush timeout. Blocks
  // until every call has its status. When the store hangs, or gRPC does, the server cannot be
  // destroyed. Once.
  DeviceThread::Rest Shutdown();
  // After Shutdown: gRPC did not end, though no call of the daemon's is open.
  bool grpc_hangs() const { return grpc_hangs_; }
  // Ends what Shutdown waits for now: the streams, or the disk. Any thread, any time.
  void Hurry();
  // Has the files of tenants and certificates read now, changed or not. Any thread; does not wait.
  void Reload();

  const std::string& address() const { return address_; }
  std::string admin_address() const {
    return admin_ == nullptr ? "none" : FormatAddress(admin_->address());
  }
  // Empty: none.
  std::string http_address() const {
    return http_ == nullptr ? "" : FormatAddress(http_->address());
  }
  const v1::Model& model() const { return host_.description; }

 private:
  explicit Server(const ServerOptions& options);

  absl::Status StartParts(const DeviceEvents& events);
  void WatchDevice(const DeviceEvents& events);
  absl::Status OpenDoor();
  absl::Status OpenTls();
  absl::Status CheckHttp();
  bool HttpIsAskedFor() const;
  absl::Status CheckAdmin();
  void BuildCore();
  ListenerOptions Connections() const;
  bool EverybodyMayCall() const;
  absl::Status Bind();
  absl::Status Listen();
  absl::Status CheckGrpc();
  absl::Status StartHttp();
  InferenceParts Parts();
  absl::Status StartAdmin();
  void ShutDownGrpc();
  RequestBounds Bounds() const;

  ServerOptions options_;
  SteadyClock clock_;
  StartupTimer timer_;
  CallStats calls_;
  HttpServerStats http_stats_;  // of the OpenAI door and the admin port
  ModelHost host_;
  Address listen_;
  Address http_listen_;
  Address admin_listen_;
  std::unique_ptr<ServerTls> tls_;  // null: plain text
  std::unique_ptr<Authenticator> auth_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<Emitter> emitter_;
  std::unique_ptr<StoreThread> store_thread_;  // null: no session directory
  std::unique_ptr<DeviceThread> device_thread_;
  std::unique_ptr<Drain> drain_;
  std::unique_ptr<MemoryGuard> memory_;
  std::unique_ptr<Watchdog> watchdog_;
  std::unique_ptr<Worker> worker_;
  std::unique_ptr<Worker> session_answers_;
  std::unique_ptr<Worker> ending_;  // waits for gRPC to end
  std::unique_ptr<Listener> listener_;
  EarlyCalls early_calls_;
  std::unique_ptr<InferenceService> inference_;
  std::unique_ptr<SessionCalls> session_calls_;
  std::unique_ptr<SessionService> sessions_;
  std::unique_ptr<HealthService> health_;
  std::unique_ptr<ReflectionService> reflection_;
  std::unique_ptr<grpc::Server> grpc_;
  std::unique_ptr<HttpDoor> http_;  // null: none
  bool grpc_hangs_ = false;
  std::string address_;
  MetricSources metric_sources_;
  std::atomic<bool> metrics_ready_{false};  // metric_sources_ is set
  std::unique_ptr<AdminHttp> admin_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_SERVER_H_
