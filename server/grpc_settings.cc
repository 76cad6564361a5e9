#include "server/grpc_settings.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>

#include <algorithm>
#include <atomic>
#include <climits>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"

namespace sluice {
namespace {

// A new connection has this long for its handshake.
constexpr int kHandshakeMs = 5000;

// gRPC counts in int milliseconds, and takes INT_MAX as never.
int Milliseconds(absl::Duration duration) {
  return static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(duration), INT_MAX));
}

std::atomic<LogLevel> error_level{LogLevel::kWarn};
Counter compressed_calls_refused;

constexpr char kBadHeader[] = "Error parsing metadata: error=invalid value key=";

// These lines are all that gRPC tells of a call whose compression is not enabled, or is none that
// it knows: no handler and no interceptor ever sees the call.
bool IsCompressionRefusal(absl::string_view message) {
  if (absl::ConsumePrefix(&message, kBadHeader)) {
    return absl::StartsWith(message, "grpc-encoding ");
  }
  return absl::StartsWith(message, "Compression algorithm '") &&
         absl::EndsWith(message, "' is disabled.");
}

void LogGrpcMessage(gpr_log_func_args* args) {
  if (IsCompressionRefusal(args->message)) return compressed_calls_refused.Add();
  // Any peer can send bad headers, each a line.
  const bool ours =
      args->severity == GPR_LOG_SEVERITY_ERROR && !absl::StartsWith(args->message, kBadHeader);
  Log(ours ? error_level.load() : LogLevel::kDebug, "grpc", {{"message", args->message}});
}

}  // namespace

int GrpcThreads(int cores) {
  constexpr int kTimersAndExecutors = 12;  // two at first
  const int event_engine = std::clamp(cores, 2, 32);
  const int callbacks = std::clamp(cores / 2, 2, 16);
  return kTimersAndExecutors + event_engine + callbacks;
}

void ApplyGrpcSettings(const ServerOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(options.max_message_bytes);
  builder->SetMaxSendMessageSize(options.max_message_bytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_bytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_streams_per_connection);
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_time));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              Milliseconds(options.keepalive_timeout));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 15000);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 2);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                              Milliseconds(options.max_connection_age));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                              Milliseconds(options.max_connection_age_grace));
  // gRPC inflates a message before it knows its size or who sent it: a megabyte becomes a gigabyte.
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder->AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
}

void LogGrpcErrorsAs(LogLevel level) {
  error_level = level;
  gpr_set_log_function(&LogGrpcMessage);
}

const Counter& CompressedCallsRefused() { return compressed_calls_refused; }

}  // namespace sluice
