// Everything an operator can choose, in one struct, and the one table that flags, --help,
// SLUICE_<FLAG> variables,
// --flagfile and the README's list are made from.
#ifndef SLUICE_SERVER_OPTIONS_H_
#define SLUICE_SERVER_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace sluice {

// Defaults are the initializers here and nowhere else.
struct ServerOptions {
  // Serving
  std::string model;
  std::string model_name;
  std::string tokenizer;
  std::string listen = "127.0.0.1:50051";
  std::string admin_listen = "127.0.0.1:9464";
  std::string http_listen;
  std::string chat_template = "{role}: {content}\\n";
  std::string device = "auto";
  int32_t threads = 0;
  absl::Duration step_timeout = absl::Seconds(30);
  bool batch_invariant = true;

  // Memory and batching
  int32_t max_batch_tokens = 0;
  int64_t device_state_bytes = 0;
  int64_t memory_limit = 0;

  // Sessions
  int64_t host_state_bytes = int64_t{1} << 30;
  int64_t disk_state_bytes = int64_t{16} << 30;
  int64_t prefix_cache_bytes = int64_t{256} << 20;
  std::string session_dir;
  bool session_dir_shared = false;
  absl::Duration session_dir_wait = absl::Seconds(60);
  std::string state_key_file;
  absl::Duration session_ttl = absl::Hours(24);
  int64_t max_sessions = 100000;
  int64_t max_sessions_per_tenant = 100000;

  // Bounds on one request
  int64_t max_prompt_tokens = 1048576;
  int32_t max_new_tokens = 1048576;
  int32_t max_sequences = 64;
  int32_t max_stop_strings = 16;
  int32_t max_logprobs = 20;
  int32_t max_message_bytes = 4194304;

  // Bounds on all of them
  int32_t max_streams = 4096;
  int32_t max_queued_requests = 1024;
  int64_t max_queued_tokens = 8388608;
  int32_t ring_events = 256;
  absl::Duration write_stall = absl::Seconds(10);
  absl::Duration drain_timeout = absl::Seconds(30);
  absl::Duration flush_timeout = absl::Seconds(10);

  // Connections
  int32_t max_connections = 1024;
  int32_t max_connections_per_peer = 0;
  int64_t max_unclaimed_bytes = int64_t{16} << 20;
  int32_t max_metadata_bytes = 8192;
  int32_t max_streams_per_connection = 256;
  absl::Duration keepalive_time = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(10);
  absl::Duration max_connection_age = absl::Minutes(30);
  absl::Duration max_connection_age_grace = absl::Hours(24);

  // Who may call
  std::string auth_tokens_file;
  int32_t auth_failures_per_minute = 60;
  bool auth_finish_revoked_calls = false;
  bool open_reflection = false;
  std::string tls_cert;
  std::string tls_key;
  std::string tls_client_ca;
  bool allow_plaintext = false;

  // Logs and metrics
  std::string log_format = "text";
  std::string log_level = "info";
  bool vllm_metrics = true;
};

// What to do after a command line was read.
enum class CommandLineAction : uint8_t { kServe, kHelp, kHelpMarkdown, kHelpMetrics, kVersion };

struct CommandLine {
  CommandLineAction action = CommandLineAction::kServe;
  ServerOptions options;
};

// Reads flags (without the program's name) over the environment over the defaults; a --flagfile
// counts where it stands. `getenv` gives null for what is not set. Errors name the flag, and where
// it came from.
absl::StatusOr<CommandLine> ParseCommandLine(absl::Span<const std::string> args,
                                             const std::function<const char*(const char*)>& getenv);

std::string HelpText();
std::string HelpMarkdown();
std::string Version();  // "0.1.0"

struct FlagValue {
  std::string name;
  std::string text;              // as the command line would have it
  std::optional<double> number;  // of a number, and of a duration in seconds
};
// Every flag's value, in the table's order.
std::vector<FlagValue> FlagValues(const ServerOptions& options);

}  // namespace sluice

#endif  // SLUICE_SERVER_OPTIONS_H_
