// The two streams of SessionService: a session's bytes, out and in.
#ifndef SLUICE_SERVER_SESSION_TRANSFER_H_
#define SLUICE_SERVER_SESSION_TRANSFER_H_

#include <grpcpp/grpcpp.h>

#include "absl/status/statusor.h"
#include "server/session_calls.h"
#include "sluice/v1/session.pb.h"

namespace sluice {

// Ends at once with `tenant`'s error. One write is in flight at most. `calls` outlives the call.
grpc::ServerWriteReactor<v1::ExportSessionResponse>* StartExport(
    SessionCalls* calls, const absl::StatusOr<TenantRef>& tenant, CallRecord call,
    const v1::ExportSessionRequest& message);

// Ends at once with `tenant`'s error. `calls` outlives the call.
grpc::ServerReadReactor<v1::ImportSessionRequest>* StartImport(
    SessionCalls* calls, const absl::StatusOr<TenantRef>& tenant, CallRecord call,
    grpc::CallbackServerContext* context, v1::Session* response);

}  // namespace sluice

#endif  // SLUICE_SERVER_SESSION_TRANSFER_H_
