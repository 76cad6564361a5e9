// grpc.health.v1: Check and Watch, for the daemon ("") and each of its services.
#ifndef SLUICE_SERVER_HEALTH_H_
#define SLUICE_SERVER_HEALTH_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <set>
#include <string>

#include "absl/strings/string_view.h"
#include "engine/clock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/call_stats.h"
#include "server/core/mutex.h"
#include "server/early_calls.h"

namespace sluice {

class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // Not serving at first. All outlive the service. `listener` is told of the calls: null where
  // callers must say who they are, which those of this service need not.
  HealthService(CallStats* stats, const Clock* clock, EarlyCalls* early_calls, Listener* listener);
  ~HealthService() override;

  // Answers with this from now on, and tells whoever watches. Any thread.
  void SetServing(bool serving);
  // Ends every Watch, and those to come at once: an open one would keep the server from shutting
  // down. Any thread.
  void EndWatches();

  bool serving() const;

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  class Watcher;

  CallStats* const stats_;
  const Clock* const clock_;
  EarlyCalls* const early_calls_;
  Listener* const listener_;
  mutable Mutex mutex_;
  bool serving_ SLUICE_GUARDED_BY(mutex_) = false;
  bool ended_ SLUICE_GUARDED_BY(mutex_) = false;
  std::set<std::shared_ptr<Watcher>> watchers_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HEALTH_H_
