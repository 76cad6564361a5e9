// A failed call in one helpful line.
#ifndef SLUICE_CLIENT_ERROR_H_
#define SLUICE_CLIENT_ERROR_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace sluice {

// The code stays; the message becomes one line made of google.rpc details where there are any
// ("sampling.top_p: is 2, must be in (0, 1]"; "...; retry in 250 ms") and of a hint where the
// daemon at `address` was not reached. Each detail becomes a payload of the status under its type
// URL.
absl::Status ToAbslStatus(const grpc::Status& status, absl::string_view address);

// The delay that the daemon asked for in google.rpc.RetryInfo, if ToAbslStatus made `status`.
std::optional<absl::Duration> RetryDelay(const absl::Status& status);

// The reason in google.rpc.ErrorInfo, such as SESSIONS_NOT_SUPPORTED; empty where there is none.
std::string ErrorReason(const absl::Status& status);

}  // namespace sluice

#endif  // SLUICE_CLIENT_ERROR_H_
