// Settings that gRPC is given explicitly, because its defaults are not made for a server that
// anyone may connect to.
#ifndef SLUICE_SERVER_GRPC_SETTINGS_H_
#define SLUICE_SERVER_GRPC_SETTINGS_H_

#include <grpcpp/server_builder.h>

#include "engine/stats.h"
#include "server/log.h"
#include "server/options.h"

namespace sluice {

// Threads that gRPC starts on a machine of so many cores, those that it starts only when it needs
// them among them.
int GrpcThreads(int cores);

// Sizes, keepalive, ages, no compression.
void ApplyGrpcSettings(const ServerOptions& options, grpc::ServerBuilder* builder);

// Has gRPC's own messages logged as ours: its errors at `level`, the rest at debug. A refused
// compressed call is counted and not logged. Any thread.
void LogGrpcErrorsAs(LogLevel level);

// Calls refused because they were compressed, since the process started.
const Counter& CompressedCallsRefused();

}  // namespace sluice

#endif  // SLUICE_SERVER_GRPC_SETTINGS_H_
