// The end of every gRPC call of SessionService. Internal to the doors to sessions.
#ifndef SLUICE_SERVER_SESSION_CALL_H_
#define SLUICE_SERVER_SESSION_CALL_H_

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "server/session_parts.h"
#include "server/status.h"

namespace sluice {

// Counts the call, and gives what to finish it with.
inline grpc::Status EndOf(const SessionParts& parts, const CallRecord& call,
                          const absl::Status& status) {
  const grpc::Status end = ToGrpcStatus(status);
  parts.stats->Done(call, end.error_code(), parts.clock->Now());
  return end;
}

inline absl::Status ShuttingDown() { return absl::UnavailableError("the daemon is shutting down"); }

}  // namespace sluice

#endif  // SLUICE_SERVER_SESSION_CALL_H_
