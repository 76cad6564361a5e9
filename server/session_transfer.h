// The two streams of SessionService: a session's bytes, out and in.
#ifndef SLUICE_SERVER_SESSION_TRANSFER_H_
#define SLUICE_SERVER_SESSION_TRANSFER_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/session_service.h"
#include "server/validate_session.h"

namespace sluice {

// Ends at once with `tenant`'s or `named`'s error. One write is in flight at most.
grpc::ServerWriteReactor<v1::ExportSessionResponse>* StartExport(
    const SessionParts& parts, const absl::StatusOr<TenantRef>& tenant, CallRecord call,
    const absl::StatusOr<NamedSession>& named);

// Ends at once with `tenant`'s error. `running` counts the imports that hold memory.
grpc::ServerReadReactor<v1::ImportSessionRequest>* StartImport(
    const SessionParts& parts, const absl::StatusOr<TenantRef>& tenant, CallRecord call,
    grpc::CallbackServerContext* context, int32_t vocab_size, std::atomic<int>* running,
    v1::Session* response);

}  // namespace sluice

#endif  // SLUICE_SERVER_SESSION_TRANSFER_H_
