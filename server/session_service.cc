#include "server/session_service.h"

#include <utility>

#include "server/grpc_handlers.h"
#include "server/session_call.h"
#include "server/session_transfer.h"
#include "server/trace.h"

namespace sluice {

SessionService::SessionService(SessionCalls* calls) : calls_(calls), parts_(calls->parts()) {
  HandleUnparsable();
}

void SessionService::HandleUnparsable() {
  const auto handle = [this](const char* name, Method counted_as, auto method) {
    const auto refused = [this, counted_as](grpc::CallbackServerContext* context) {
      parts_.early_calls->Arrive(*context);
      parts_.stats->Done(Record(counted_as, context), UnparsableMessage().error_code(),
                         parts_.clock->Now());
    };
    MarkMethodCallback(MethodIndex(v1::SessionService::service_full_name(), name),
                       NewHandler(this, method, refused));
  };
  handle("CreateSession", Method::kCreateSession, &SessionService::CreateSession);
  handle("GetSession", Method::kGetSession, &SessionService::GetSession);
  handle("ListSessions", Method::kListSessions, &SessionService::ListSessions);
  handle("UpdateSession", Method::kUpdateSession, &SessionService::UpdateSession);
  handle("ForkSession", Method::kForkSession, &SessionService::ForkSession);
  handle("DeleteSession", Method::kDeleteSession, &SessionService::DeleteSession);
  handle("ExportSession", Method::kExportSession, &SessionService::ExportSession);
}

CallRecord SessionService::Record(Method method, grpc::CallbackServerContext* context) const {
  return {.method = method, .started = parts_.clock->Now(), .span = StartSpan(context)};
}

absl::StatusOr<TenantRef> SessionService::Caller(const grpc::CallbackServerContext& context,
                                                 CallRecord* call) const {
  parts_.early_calls->Arrive(context);
  absl::StatusOr<TenantRef> tenant = parts_.auth->TenantOf(context);
  if (!tenant.ok()) return tenant;
  call->connection = BeginConnectionCall(parts_.listener, context);
  absl::Status offered = calls_->Offered();
  if (!offered.ok()) return offered;
  if (draining_.load(std::memory_order_relaxed)) return ShuttingDown();
  return tenant;
}

template <typename Message, typename Response>
grpc::ServerUnaryReactor* SessionService::Answer(
    grpc::CallbackServerContext* context, Method method, const Message* message, Response* response,
    void (SessionCalls::*act)(const std::string&, const Message&, Done<Response>) const) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  CallRecord call = Record(method, context);
  const absl::StatusOr<TenantRef> caller = Caller(*context, &call);
  const Done<Response> finish = [this, reactor, call, response](absl::StatusOr<Response> result) {
    if (result.ok()) *response = *std::move(result);
    reactor->Finish(EndOf(parts_, call, result.status()));
  };
  if (caller.ok()) {
    (calls_->*act)((*caller)->name, *message, finish);
  } else {
    finish(caller.status());
  }
  return reactor;
}

grpc::ServerUnaryReactor* SessionService::CreateSession(grpc::CallbackServerContext* context,
                                                        const v1::CreateSessionRequest* message,
                                                        v1::Session* response) {
  return Answer(context, Method::kCreateSession, message, response, &SessionCalls::Create);
}

grpc::ServerUnaryReactor* SessionService::GetSession(grpc::CallbackServerContext* context,
                                                     const v1::GetSessionRequest* message,
                                                     v1::Session* response) {
  return Answer(context, Method::kGetSession, message, response, &SessionCalls::Get);
}

grpc::ServerUnaryReactor* SessionService::ListSessions(grpc::CallbackServerContext* context,
                                                       const v1::ListSessionsRequest* message,
                                                       v1::ListSessionsResponse* response) {
  return Answer(context, Method::kListSessions, message, response, &SessionCalls::List);
}

grpc::ServerUnaryReactor* SessionService::UpdateSession(grpc::CallbackServerContext* context,
                                                        const v1::UpdateSessionRequest* message,
                                                        v1::Session* response) {
  return Answer(context, Method::kUpdateSession, message, response, &SessionCalls::Update);
}

grpc::ServerUnaryReactor* SessionService::ForkSession(grpc::CallbackServerContext* context,
                                                      const v1::ForkSessionRequest* message,
                                                      v1::Session* response) {
  return Answer(context, Method::kForkSession, message, response, &SessionCalls::Fork);
}

grpc::ServerUnaryReactor* SessionService::DeleteSession(grpc::CallbackServerContext* context,
                                                        const v1::DeleteSessionRequest* message,
                                                        google::protobuf::Empty* response) {
  return Answer(context, Method::kDeleteSession, message, response, &SessionCalls::Delete);
}

grpc::ServerWriteReactor<v1::ExportSessionResponse>* SessionService::ExportSession(
    grpc::CallbackServerContext* context, const v1::ExportSessionRequest* message) {
  CallRecord call = Record(Method::kExportSession, context);
  const absl::StatusOr<TenantRef> tenant = Caller(*context, &call);
  return StartExport(calls_, tenant, std::move(call), *message);
}

grpc::ServerReadReactor<v1::ImportSessionRequest>* SessionService::ImportSession(
    grpc::CallbackServerContext* context, v1::Session* response) {
  CallRecord call = Record(Method::kImportSession, context);
  const absl::StatusOr<TenantRef> tenant = Caller(*context, &call);
  return StartImport(calls_, tenant, std::move(call), context, response);
}

}  // namespace sluice
