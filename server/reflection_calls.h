// Calls of the reflection service, which is gRPC's own: the daemon sees them as an interceptor
// does.
#ifndef SLUICE_SERVER_REFLECTION_CALLS_H_
#define SLUICE_SERVER_REFLECTION_CALLS_H_

#include <grpcpp/support/server_interceptor.h>

#include <memory>

namespace sluice {

class Listener;

// Tells `listener` of them. It outlives the server.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> ReportReflectionCalls(
    Listener* listener);

}  // namespace sluice

#endif  // SLUICE_SERVER_REFLECTION_CALLS_H_
