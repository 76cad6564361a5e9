// A call's place in its caller's trace, from gRPC's metadata or HTTP's headers.
#ifndef SLUICE_SERVER_TRACE_H_
#define SLUICE_SERVER_TRACE_H_

#include <grpcpp/grpcpp.h>

#include "absl/strings/string_view.h"
#include "server/core/trace_context.h"

namespace sluice {

// A new span under the parent that `traceparent` names; in no trace when that is not valid: a bad
// header is never an error of the call's.
TraceSpan StartSpan(absl::string_view traceparent);

// The same for a call, whose trailing metadata then names the span. More than one traceparent is
// none. Before the call can finish.
TraceSpan StartSpan(grpc::CallbackServerContext* context);

}  // namespace sluice

#endif  // SLUICE_SERVER_TRACE_H_
