// The end of every call of SessionService. Internal to session_service and session_transfer.
#ifndef SLUICE_SERVER_SESSION_CALL_H_
#define SLUICE_SERVER_SESSION_CALL_H_

#include <grpcpp/grpcpp.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/session_service.h"
#include "server/status.h"

namespace sluice {

// Counts the call, and gives what to finish it with.
inline grpc::Status EndOf(const SessionParts& parts, const CallRecord& call,
                          const absl::Status& status) {
  const grpc::Status end = ToGrpcStatus(status);
  parts.stats->Done(call, end.error_code(), parts.clock->Now());
  return end;
}

// `done` on the answering thread: the device's has better things to do than to send messages.
template <typename T>
Done<T> OnAnswers(const SessionParts& parts, std::function<void(absl::StatusOr<T>)> done) {
  return [answers = parts.answers, done = std::move(done)](absl::StatusOr<T> result) {
    const bool posted =
        answers->Post([done, result = std::move(result)]() mutable { done(std::move(result)); });
    SLUICE_CHECK(posted);
  };
}

inline absl::Status ShuttingDown() { return absl::UnavailableError("the daemon is shutting down"); }

}  // namespace sluice

#endif  // SLUICE_SERVER_SESSION_CALL_H_
