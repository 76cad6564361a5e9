// sluice.v1.SessionService: gRPC's door to SessionCalls.
#ifndef SLUICE_SERVER_SESSION_SERVICE_H_
#define SLUICE_SERVER_SESSION_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <string>

#include "absl/status/statusor.h"
#include "server/auth.h"
#include "server/call_stats.h"
#include "server/session_calls.h"
#include "server/session_parts.h"
#include "sluice/v1/session.grpc.pb.h"

namespace sluice {

// Its methods run on gRPC's few callback threads: none of them waits.
class SessionService final : public v1::SessionService::CallbackService {
 public:
  // `calls` outlives the service.
  explicit SessionService(SessionCalls* calls);

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
  // Has calls refused whose message cannot be parsed.
  void HandleUnparsable();
  CallRecord Record(Method method, grpc::CallbackServerContext* context) const;
  // The tenant whose sessions the call is about, or the error that refuses the call.
  absl::StatusOr<TenantRef> Caller(const grpc::CallbackServerContext& context,
                                   CallRecord* call) const;
  // One unary call: `act` puts its answer into `response`.
  template <typename Message, typename Response>
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, Method method,
                                   const Message* message, Response* response,
                                   void (SessionCalls::*act)(const std::string& tenant,
                                                             const Message& message,
                                                             Done<Response> done) const);

  SessionCalls* const calls_;
  const SessionParts& parts_;
  std::atomic<bool> draining_{false};
};

}  // namespace sluice

#endif  // SLUICE_SERVER_SESSION_SERVICE_H_
