// sluice.v1.SessionService: each call is validated and done on the device thread, which owns the
// sessions; the answer is made and sent by a thread of the service's own.
#ifndef SLUICE_SERVER_SESSION_SERVICE_H_
#define SLUICE_SERVER_SESSION_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/clock.h"
#include "engine/sessions/sessions.h"
#include "engine/state/state_header.h"
#include "engine/state/state_keys.h"
#include "server/auth.h"
#include "server/call_stats.h"
#include "server/core/device_thread.h"
#include "server/early_calls.h"
#include "server/validate.h"
#include "server/worker.h"
#include "sluice/v1/session.grpc.pb.h"

namespace sluice {

// The parts that the service works with; all of them outlive the service.
struct SessionParts {
  const Authenticator* auth = nullptr;
  DeviceThread* device = nullptr;
  Worker* answers = nullptr;        // without a bound on what waits
  const StateKeys* keys = nullptr;  // null: nothing is exported or imported
  const StateSpec* spec = nullptr;  // of the model
  CallStats* stats = nullptr;
  const Clock* clock = nullptr;
  Listener* listener = nullptr;       // is told of the calls; null: nobody is
  EarlyCalls* early_calls = nullptr;  // is told of every call
};

// Its methods run on gRPC's few callback threads: none of them waits.
class SessionService final : public v1::SessionService::CallbackService {
 public:
  SessionService(const SessionParts& parts, const RequestBounds& bounds)
      : parts_(parts), bounds_(bounds) {}

  // From now on calls are refused with UNAVAILABLE. Any thread.
  void Drain() { draining_.store(true, std::memory_order_relaxed); }

  grpc::ServerUnaryReactor* CreateSession(grpc::CallbackServerContext* context,
                                          const v1::CreateSessionRequest* message,
                                          v1::Session* response) override;
  grpc::ServerUnaryReactor* GetSession(grpc::CallbackServerContext* context,
                                       const v1::GetSessionRequest* message,
                                       v1::Session* response) override;
  grpc::ServerUnaryReactor* ListSessions(grpc::CallbackServerContext* context,
                                         const v1::ListSessionsRequest* message,
                                         v1::ListSessionsResponse* response) override;
  grpc::ServerUnaryReactor* UpdateSession(grpc::CallbackServerContext* context,
                                          const v1::UpdateSessionRequest* message,
                                          v1::Session* response) override;
  grpc::ServerUnaryReactor* ForkSession(grpc::CallbackServerContext* context,
                                        const v1::ForkSessionRequest* message,
                                        v1::Session* response) override;
  grpc::ServerUnaryReactor* DeleteSession(grpc::CallbackServerContext* context,
                                          const v1::DeleteSessionRequest* message,
                                          google::protobuf::Empty* response) override;
  grpc::ServerWriteReactor<v1::ExportSessionResponse>* ExportSession(
      grpc::CallbackServerContext* context, const v1::ExportSessionRequest* message) override;
  grpc::ServerReadReactor<v1::ImportSessionRequest>* ImportSession(
      grpc::CallbackServerContext* context, v1::Session* response) override;

 private:
  CallRecord Record(Method method, grpc::CallbackServerContext* context) const;
  // The tenant whose sessions the call is about, or the error that refuses the call.
  absl::StatusOr<TenantRef> Caller(const grpc::CallbackServerContext& context,
                                   CallRecord* call) const;
  // One unary call. `act` starts it on the device thread; `fill` makes the answer.
  template <typename Query, typename Result>
  grpc::ServerUnaryReactor* Answer(
      grpc::CallbackServerContext* context, Method method,
      std::function<absl::StatusOr<Query>(const std::string& tenant)> parse,
      std::function<void(Sessions&, const std::string& tenant, const Query&, Done<Result>)> act,
      std::function<void(const std::string& tenant, const Query&, const Result&)> fill);

  const SessionParts parts_;
  const RequestBounds bounds_;
  std::atomic<bool> draining_{false};
  std::atomic<int> imports_{0};
};

}  // namespace sluice

#endif  // SLUICE_SERVER_SESSION_SERVICE_H_
