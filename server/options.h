// Everything that an operator can choose, in one struct. Flags, SLUICE_<FLAG> variables and
// --flagfile set its fields by the table in flag_table.cc; --help and the table in
// server/README.md print them.
#ifndef SLUICE_SERVER_OPTIONS_H_
#define SLUICE_SERVER_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace sluice {

// Defaults are the initializers here and nowhere else. Each field's comment is the text that --help
// prints (tests/plain_english_test.py compares it with the table).
struct ServerOptions {
  // Serving

  // This directory holds the checkpoint: config.json, *.safetensors and a tokenizer (or see
  // --tokenizer). The flag is required.
  std::string model;
  // The API calls the model by this name. If empty, it takes the directory's name.
  std::string model_name;
  // The tokenizer is read from this directory; if empty, from the model's. With none, the model is
  // served by token ids alone, and fields that hold text are refused.
  std::string tokenizer;
  // The gRPC services listen on this address. Port 0 picks a free port.
  std::string listen = "127.0.0.1:50051";
  // /metrics, /healthz and /readyz are served on this address; if empty, nowhere. The port is plain
  // HTTP, so an address beyond loopback needs --allow_plaintext. Port 0 picks a free port.
  std::string admin_listen = "127.0.0.1:9464";
  // The OpenAI-compatible HTTP API and its page are served on this address; if empty, nowhere. The
  // port is plain HTTP, so an address beyond loopback needs --allow_plaintext. Port 0 picks a free
  // port. If the default address is taken, or over HTTP nobody could show who he is, the daemon
  // serves without the port and logs why.
  std::string http_listen = "127.0.0.1:8080";
  // Pages of these origins may use the HTTP API: a list such as https://a.example,http://b:3000, or
  // * for every page. Pages of other origins than its own are refused.
  std::string cors_origins;
  // On loopback and without --auth_tokens_file, the HTTP API is refused to requests whose Host is
  // neither a name of loopback nor in this list (a.example,b), because any page may have a name
  // that leads here.
  std::string http_hosts;
  // /metrics is served on the HTTP API's port too, to whoever may call.
  bool http_metrics = false;
  // Over HTTP, the sampling that the checkpoint's generation_config.json names holds where a
  // request is silent. gRPC keeps the defaults of its messages.
  bool generation_config = true;
  // A stream over HTTP is silent for no longer than this: a comment line goes out, because proxies
  // cut connections that are silent. inf means never.
  absl::Duration http_stream_silence = absl::Seconds(5);
  // The HTTP API writes each message of a chat by this template. {role} and {content} stand for
  // those of the message; \n, \t and \\ are escapes.
  std::string chat_template = "{role}: {content}\\n";
  // The model runs on this device. With auto, it runs on the first GPU that can run it, else on the
  // CPU.
  std::string device = "auto";
  // The CPU backend computes with this many threads. 0 means one per core.
  int32_t threads = 0;
  // A step of the device that takes longer than this has hung. The daemon then reports that it is
  // not ready and ends with exit code 70.
  absl::Duration step_timeout = absl::Seconds(30);
  // On a GPU, a request's bits never depend on what else is in the batch. On the CPU this always
  // holds.
  bool batch_invariant = true;

  // Memory and batching

  // One step computes at most this many tokens. There must be room for one slot and one chunk of a
  // prompt. 0 means 256 on the CPU and 4096 on a GPU.
  int32_t max_batch_tokens = 0;
  // States on the device take at most this many bytes, which bounds the sequences that run at once.
  // 0 means 64 states on the CPU, or those that a quarter of the memory holds; on a GPU, 1024
  // states, or those that its free memory holds. There are never more states than
  // --max_batch_tokens has room for.
  int64_t device_state_bytes = 0;
  // A sequence has at most this many tokens, history and answer together, if the model has softmax
  // layers without a window, whose states grow. 0 means what the model was trained for, or what the
  // memory for states holds. Other models have no such limit.
  int64_t max_attention_tokens = 0;
  // The process may have this many bytes of memory. Above nine tenths of them, no call is admitted
  // beside those that run. 0 means what the cgroup allows, and no limit where the cgroup has none.
  int64_t memory_limit = 0;

  // Sessions

  // States in host memory take at most this many bytes. They belong to sessions that are not on the
  // device, to the prefix cache, and to calls whose reader is too slow.
  int64_t host_state_bytes = int64_t{1} << 30;
  // States in --session_dir take at most this many bytes. While a state replaces another, both are
  // on disk for a moment.
  int64_t disk_state_bytes = int64_t{16} << 30;
  // The prefix cache takes at most this many bytes of --host_state_bytes. It keeps the states after
  // beginnings of prompts, so that each is computed once. 0 means that there is no cache.
  int64_t prefix_cache_bytes = int64_t{256} << 20;
  // Sessions are kept in this directory over restarts; if empty, they end with the daemon. One
  // daemon has the directory for itself unless --session_dir_shared is set.
  std::string session_dir;
  // Daemons that all have this flag share --session_dir. A call on a session waits for a call that
  // another daemon runs on it as it does for one of its own daemon.
  bool session_dir_shared = false;
  // At the start, the daemon waits this long for another one that has --session_dir and still
  // drains. Then the start fails with exit code 2 and names that daemon's process.
  absl::Duration session_dir_wait = absl::Seconds(60);
  // The first key of this file signs exported sessions, and every key in it is accepted on import.
  // Each line is one key of 32 bytes or more in hex (openssl rand -hex 32). If empty, there is no
  // export and no import.
  std::string state_key_file;
  // A session that names no time to live ends when it is unused for this long. inf means never.
  absl::Duration session_ttl = absl::Hours(24);
  // At most this many sessions exist at once. 0 means that there are no sessions.
  int64_t max_sessions = 100000;
  // At most this many sessions of one tenant exist at once.
  int64_t max_sessions_per_tenant = 100000;

  // Bounds on one request

  // A prompt has at most this many tokens.
  int64_t max_prompt_tokens = 1048576;
  // A request's stop.max_new_tokens is at most this.
  int32_t max_new_tokens = 1048576;
  // A request's n is at most this, and never more than the number of slots.
  int32_t max_sequences = 64;
  // A request has at most this many stop.strings.
  int32_t max_stop_strings = 16;
  // A request gets at most this many alternatives for each token.
  int32_t max_logprobs = 20;
  // One message has at most this many bytes, in either direction.
  int32_t max_message_bytes = 4194304;

  // Bounds on all requests

  // At most this many calls of Generate and Score exist at once, waiting or running.
  int32_t max_streams = 4096;
  // At most this many calls of Generate and Score wait for a slot.
  int32_t max_queued_requests = 1024;
  // The prompts of all calls that wait for a slot have at most this many tokens in all.
  int64_t max_queued_tokens = 8388608;
  // A stream holds this many events for a slow reader before its sequence is paused.
  int32_t ring_events = 256;
  // A stream whose reader takes nothing for this long is cancelled.
  absl::Duration write_stall = absl::Seconds(10);
  // On SIGTERM, running streams may take this long to finish.
  absl::Duration drain_timeout = absl::Seconds(30);
  // After the streams, the disk may take this long to take what sessions have not written yet. What
  // it has not taken then is lost, and the log and exit code 74 say so.
  absl::Duration flush_timeout = absl::Seconds(10);

  // Connections

  // At most this many connections are open at once; the newcomer is closed above that, or when the
  // process has no file descriptor for it. Above three quarters, the oldest that have not finished
  // an allowed call are closed.
  int32_t max_connections = 1024;
  // At most this many connections from one address are open at once. 0 means no limit. A proxy is
  // one address.
  int32_t max_connections_per_peer = 0;
  // A gRPC connection that sends more bytes than this beyond its calls is closed as a flood. Each
  // call may take --max_message_bytes and --max_metadata_bytes. 0 means no limit.
  int64_t max_unclaimed_bytes = int64_t{16} << 20;
  // The metadata of one call has at most this many bytes.
  int32_t max_metadata_bytes = 8192;
  // At most this many calls run at once on one connection. Further calls wait in the client.
  int32_t max_streams_per_connection = 256;
  // A connection that is silent for this long is pinged.
  absl::Duration keepalive_time = absl::Seconds(30);
  // A connection is closed when it does not answer a ping for this long.
  absl::Duration keepalive_timeout = absl::Seconds(10);
  // A connection takes no new calls after this, so that clients spread over new daemons. inf means
  // never.
  absl::Duration max_connection_age = absl::Minutes(30);
  // After --max_connection_age, the calls that run on a connection may go on for this much longer.
  absl::Duration max_connection_age_grace = absl::Hours(24);

  // Who may call

  // This file names the tenants with their tokens and limits, and is read again when it changes. If
  // empty, everybody may call.
  std::string auth_tokens_file;
  // After this many unauthenticated calls from one address in a minute, more of them are answered
  // RESOURCE_EXHAUSTED; a valid token is still let in. 0 means no limit. A proxy is one address.
  int32_t auth_failures_per_minute = 60;
  // Calls of a tenant that --auth_tokens_file no longer lets in may finish. Otherwise they end with
  // UNAUTHENTICATED.
  bool auth_finish_revoked_calls = false;
  // Reflection answers calls without a token or a tenant's certificate.
  bool open_reflection = false;
  // The gRPC port uses TLS with this certificate chain (PEM), which is read again when it,
  // --tls_key or --tls_client_ca changes. If empty, there is no TLS.
  std::string tls_cert;
  // This file holds the private key (PEM) of --tls_cert.
  std::string tls_key;
  // Clients must show a certificate of these authorities (PEM). Its subject names the tenant unless
  // --auth_tokens_file does.
  std::string tls_client_ca;
  // The daemon may listen without TLS on an address that other machines can reach.
  bool allow_plaintext = false;

  // Logs and metrics

  // The log on stderr has one line per event in either format.
  std::string log_format = "text";
  // The log has events of this level and above: debug, info (one line per call), warn or error.
  std::string log_level = "info";
  // /metrics also has the names that existing dashboards read, which begin with vllm:.
  bool vllm_metrics = true;

  // The names of the flags that were set, which are no defaults. No flag of its own.
  std::vector<std::string> given;
};

// The action that the command line asks for.
enum class CommandLineAction : uint8_t {
  kServe,
  kHelp,
  kHelpMarkdown,
  kHelpMetrics,
  kHelpMan,
  kHelpBash,
  kHelpZsh,
  kVersion,
  kVersionVerbose
};

struct CommandLine {
  CommandLineAction action = CommandLineAction::kServe;
  ServerOptions options;
  std::vector<std::string> warnings = {};  // what the operator should know, one line each
};

// Reads flags, without the program's name. They win over the environment, which wins over the
// defaults; a --flagfile counts where it stands. `environment` has entries NAME=VALUE. Errors name
// the flag, and where it came from. A variable SLUICE_* whose name is nearly a flag's is an error;
// any other that is nobody's is a warning.
absl::StatusOr<CommandLine> ParseCommandLine(absl::Span<const std::string> args,
                                             absl::Span<const std::string> environment);

std::string Version();  // "0.1.0"

struct FlagValue {
  std::string name;
  std::string text;              // how the command line writes it
  std::optional<double> number;  // set for numbers, and for durations in seconds
};
// Every flag's value, in the table's order.
std::vector<FlagValue> FlagValues(const ServerOptions& options);

}  // namespace sluice

#endif  // SLUICE_SERVER_OPTIONS_H_
