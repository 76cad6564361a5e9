// Errors on their way to a client: absl::Status to gRPC, with google.rpc details.
#ifndef SLUICE_SERVER_STATUS_H_
#define SLUICE_SERVER_STATUS_H_

#include <grpcpp/support/status.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/rpc/status.pb.h"

namespace sluice {

// Collects the first few faults of a request, and turns them into one status.
class FieldViolations {
 public:
  // `field`: path in the message, `sampling.temperature`. `description`: "is 3, must be in [0, 1]".
  void Add(absl::string_view field, absl::string_view description);
  bool empty() const { return violations_.empty(); }
  // OK when there is none, else INVALID_ARGUMENT with google.rpc.BadRequest.
  absl::Status ToStatus() const;

 private:
  struct Violation {
    std::string field;
    std::string description;
  };
  std::vector<Violation> violations_;
};

// `status` with google.rpc.ErrorInfo of this reason (UPPER_CASE, stable). Without it the code's own
// is sent.
absl::Status WithReason(absl::Status status, absl::string_view reason);

// `status` with google.rpc.RetryInfo: when the caller may try again.
absl::Status WithRetry(absl::Status status, absl::Duration delay);
// The delay that WithRetry set, in whole milliseconds, rounded up.
std::optional<int64_t> RetryMilliseconds(const absl::Status& status);

// A status as the API carries it inside messages, and as the end of a call. What a client cannot
// use is left out: an error of ours that was not meant for it becomes "internal error". OK stays
// OK.
google::rpc::Status ToRpcStatus(const absl::Status& status);
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace sluice

#endif  // SLUICE_SERVER_STATUS_H_
