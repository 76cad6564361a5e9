#include "server/flag_table.h"

#include <limits>

namespace sluice {
namespace {

using Options = ServerOptions;

constexpr double kMaxInt = std::numeric_limits<int32_t>::max();
constexpr double kTebi = 1024.0 * 1024 * 1024 * 1024;
constexpr const char* kServing = "Serving";
constexpr const char* kMemory = "Memory and batching";
constexpr const char* kSessions = "Sessions";
constexpr const char* kRequest = "Bounds on one request";
constexpr const char* kLoad = "Bounds on all requests";
constexpr const char* kConnections = "Connections";
constexpr const char* kAccess = "Who may call";
constexpr const char* kLogs = "Logs and metrics";

}  // namespace

const std::vector<ServerFlag>& ServerFlags() {
  static const auto* flags = new std::vector<ServerFlag>{
      {"model", "DIR", kServing,
       "This directory holds the checkpoint: config.json, *.safetensors and a tokenizer (or see "
       "--tokenizer). The flag is required.",
       &Options::model},
      {"model_name", "NAME", kServing,
       "The API calls the model by this name. If empty, it takes the directory's name.",
       &Options::model_name},
      {"tokenizer", "DIR|none", kServing,
       "The tokenizer is read from this directory; if empty, from the model's. With none, the "
       "model is served by token ids alone, and fields that hold text are refused.",
       &Options::tokenizer},
      {"listen", "HOST:PORT", kServing,
       "The gRPC services listen on this address. Port 0 picks a free port.", &Options::listen},
      {"admin_listen", "HOST:PORT", kServing,
       "/metrics, /healthz and /readyz are served on this address; if empty, nowhere. The port is "
       "plain HTTP, so an address beyond loopback needs --allow_plaintext. Port 0 picks a free "
       "port.",
       &Options::admin_listen},
      {"http_listen", "HOST:PORT", kServing,
       "The OpenAI-compatible HTTP API and its page are served on this address; if empty, nowhere. "
       "The port is plain HTTP, so an address beyond loopback needs --allow_plaintext. Port 0 "
       "picks a free port. If the default address is taken, or over HTTP nobody could show who he "
       "is, the daemon serves without the port and logs why.",
       &Options::http_listen},
      {"cors_origins", "ORIGINS", kServing,
       "Pages of these origins may use the HTTP API: a list such as "
       "https://a.example,http://b:3000, or * for every page. Pages of other origins than its own "
       "are refused.",
       &Options::cors_origins},
      {"http_hosts", "HOSTS", kServing,
       "On loopback and without --auth_tokens_file, the HTTP API is refused to requests whose Host "
       "is neither a name of loopback nor in this list (a.example,b), because any page may have a "
       "name that leads here.",
       &Options::http_hosts},
      {"http_metrics", "BOOL", kServing,
       "/metrics is served on the HTTP API's port too, to whoever may call.",
       &Options::http_metrics},
      {"generation_config", "BOOL", kServing,
       "Over HTTP, the sampling that the checkpoint's generation_config.json names holds where a "
       "request is silent. gRPC keeps the defaults of its messages.",
       &Options::generation_config},
      {"http_stream_silence", "DURATION", kServing,
       "A stream over HTTP is silent for no longer than this: a comment line goes out, because "
       "proxies cut connections that are silent. inf means never.",
       &Options::http_stream_silence, 0.1, kNoBound},
      {"chat_template", "TEXT", kServing,
       "The HTTP API writes each message of a chat by this template. {role} and {content} stand "
       "for those of the message; \\n, \\t and \\\\ are escapes.",
       &Options::chat_template},
      {"device",
       "auto|cpu|cuda[:N]",
       kServing,
       "The model runs on this device. With auto, it runs on the first GPU that can run it, else "
       "on the CPU.",
       &Options::device,
       -kNoBound,
       kNoBound,
       {"auto", "cpu", "cuda", "cuda:N"}},
      {"threads", "N", kServing,
       "The CPU backend computes with this many threads. 0 means one per core.", &Options::threads,
       0, 1024},
      {"step_timeout", "DURATION", kServing,
       "A step of the device that takes longer than this has hung. The daemon then reports that it "
       "is not ready and ends with exit code 70.",
       &Options::step_timeout, 0.001, kNoBound},
      {"batch_invariant", "BOOL", kServing,
       "On a GPU, a request's bits never depend on what else is in the batch. On the CPU this "
       "always holds.",
       &Options::batch_invariant},

      {"max_batch_tokens", "N", kMemory,
       "One step computes at most this many tokens. There must be room for one slot and one chunk "
       "of a prompt. 0 means 256 on the CPU and 4096 on a GPU.",
       &Options::max_batch_tokens, 0, 1 << 20},
      {"device_state_bytes", "BYTES", kMemory,
       "States on the device take at most this many bytes, which bounds the sequences that run at "
       "once. 0 means 64 states on the CPU, or those that a quarter of the memory holds; on a GPU, "
       "1024 states, or those that its free memory holds. There are never more states than "
       "--max_batch_tokens has room for.",
       &Options::device_state_bytes, 0, 1024 * kTebi},
      {"max_attention_tokens", "N", kMemory,
       "A sequence has at most this many tokens, history and answer together, if the model has "
       "softmax layers without a window, whose states grow. 0 means what the model was trained "
       "for, or what the memory for states holds. Other models have no such limit.",
       &Options::max_attention_tokens, 0, int64_t{1} << 40},
      {"memory_limit", "BYTES", kMemory,
       "The process may have this many bytes of memory. Above nine tenths of them, no call is "
       "admitted beside those that run. 0 means what the cgroup allows, and no limit where the "
       "cgroup has none.",
       &Options::memory_limit, 0, 1024 * kTebi},

      {"host_state_bytes", "BYTES", kSessions,
       "States in host memory take at most this many bytes. They belong to sessions that are not "
       "on the device, to the prefix cache, and to calls whose reader is too slow.",
       &Options::host_state_bytes, 0, 1024 * kTebi},
      {"disk_state_bytes", "BYTES", kSessions,
       "States in --session_dir take at most this many bytes. While a state replaces another, both "
       "are on disk for a moment.",
       &Options::disk_state_bytes, 0, 1024 * kTebi},
      {"prefix_cache_bytes", "BYTES", kSessions,
       "The prefix cache takes at most this many bytes of --host_state_bytes. It keeps the states "
       "after beginnings of prompts, so that each is computed once. 0 means that there is no "
       "cache.",
       &Options::prefix_cache_bytes, 0, 1024 * kTebi},
      {"session_dir", "DIR", kSessions,
       "Sessions are kept in this directory over restarts; if empty, they end with the daemon. One "
       "daemon has the directory for itself unless --session_dir_shared is set.",
       &Options::session_dir},
      {"session_dir_shared", "BOOL", kSessions,
       "Daemons that all have this flag share --session_dir. A call on a session waits for a call "
       "that another daemon runs on it as it does for one of its own daemon.",
       &Options::session_dir_shared},
      {"session_dir_wait", "DURATION", kSessions,
       "At the start, the daemon waits this long for another one that has --session_dir and still "
       "drains. Then the start fails with exit code 2 and names that daemon's process.",
       &Options::session_dir_wait, 0, kNoBound},
      {"state_key_file", "FILE", kSessions,
       "The first key of this file signs exported sessions, and every key in it is accepted on "
       "import. Each line is one key of 32 bytes or more in hex (openssl rand -hex 32). If empty, "
       "there is no export and no import.",
       &Options::state_key_file},
      {"session_ttl", "DURATION", kSessions,
       "A session that names no time to live ends when it is unused for this long. inf means "
       "never.",
       &Options::session_ttl, 0.001, kNoBound},
      {"max_sessions", "N", kSessions,
       "At most this many sessions exist at once. 0 means that there are no sessions.",
       &Options::max_sessions, 0, kMaxInt},
      {"max_sessions_per_tenant", "N", kSessions,
       "At most this many sessions of one tenant exist at once.", &Options::max_sessions_per_tenant,
       0, kMaxInt},

      {"max_prompt_tokens", "N", kRequest, "A prompt has at most this many tokens.",
       &Options::max_prompt_tokens, 1, kMaxInt},
      {"max_new_tokens", "N", kRequest, "A request's stop.max_new_tokens is at most this.",
       &Options::max_new_tokens, 1, kMaxInt},
      {"max_sequences", "N", kRequest,
       "A request's n is at most this, and never more than the number of slots.",
       &Options::max_sequences, 1, 4096},
      {"max_stop_strings", "N", kRequest, "A request has at most this many stop.strings.",
       &Options::max_stop_strings, 0, 1024},
      {"max_logprobs", "N", kRequest,
       "A request gets at most this many alternatives for each token.", &Options::max_logprobs, 0,
       20},
      {"max_message_bytes", "BYTES", kRequest,
       "One message has at most this many bytes, in either direction.", &Options::max_message_bytes,
       65536, 256 << 20},

      {"max_streams", "N", kLoad,
       "At most this many calls of Generate and Score exist at once, waiting or running.",
       &Options::max_streams, 1, 1 << 20},
      {"max_queued_requests", "N", kLoad,
       "At most this many calls of Generate and Score wait for a slot.",
       &Options::max_queued_requests, 1, 1 << 20},
      {"max_queued_tokens", "N", kLoad,
       "The prompts of all calls that wait for a slot have at most this many tokens in all.",
       &Options::max_queued_tokens, 1, kTebi},
      {"ring_events", "N", kLoad,
       "A stream holds this many events for a slow reader before its sequence is paused.",
       &Options::ring_events, 16, 65536},
      {"write_stall", "DURATION", kLoad,
       "A stream whose reader takes nothing for this long is cancelled.", &Options::write_stall,
       0.001, kNoBound},
      {"drain_timeout", "DURATION", kLoad,
       "On SIGTERM, running streams may take this long to finish.", &Options::drain_timeout, 0,
       kNoBound},
      {"flush_timeout", "DURATION", kLoad,
       "After the streams, the disk may take this long to take what sessions have not written yet. "
       "What it has not taken then is lost, and the log and exit code 74 say so.",
       &Options::flush_timeout, 0, kNoBound},

      {"max_connections", "N", kConnections,
       "At most this many connections are open at once; the newcomer is closed above that, or when "
       "the process has no file descriptor for it. Above three quarters, the oldest that have not "
       "finished an allowed call are closed.",
       &Options::max_connections, 1, kMaxInt},
      {"max_connections_per_peer", "N", kConnections,
       "At most this many connections from one address are open at once. 0 means no limit. A proxy "
       "is one address.",
       &Options::max_connections_per_peer, 0, kMaxInt},
      {"max_unclaimed_bytes", "BYTES", kConnections,
       "A gRPC connection that sends more bytes than this beyond its calls is closed as a flood. "
       "Each call may take --max_message_bytes and --max_metadata_bytes. 0 means no limit.",
       &Options::max_unclaimed_bytes, 0, kTebi},
      {"max_metadata_bytes", "BYTES", kConnections,
       "The metadata of one call has at most this many bytes.", &Options::max_metadata_bytes, 1024,
       1 << 20},
      {"max_streams_per_connection", "N", kConnections,
       "At most this many calls run at once on one connection. Further calls wait in the client.",
       &Options::max_streams_per_connection, 1, kMaxInt},
      {"keepalive_time", "DURATION", kConnections,
       "A connection that is silent for this long is pinged.", &Options::keepalive_time, 1,
       kNoBound},
      {"keepalive_timeout", "DURATION", kConnections,
       "A connection is closed when it does not answer a ping for this long.",
       &Options::keepalive_timeout, 0.001, kNoBound},
      {"max_connection_age", "DURATION", kConnections,
       "A connection takes no new calls after this, so that clients spread over new daemons. inf "
       "means never.",
       &Options::max_connection_age, 1, kNoBound},
      {"max_connection_age_grace", "DURATION", kConnections,
       "After --max_connection_age, the calls that run on a connection may go on for this much "
       "longer.",
       &Options::max_connection_age_grace, 0.001, kNoBound},

      {"auth_tokens_file", "FILE", kAccess,
       "This file names the tenants with their tokens and limits, and is read again when it "
       "changes. If empty, everybody may call.",
       &Options::auth_tokens_file},
      {"auth_failures_per_minute", "N", kAccess,
       "After this many unauthenticated calls from one address in a minute, more of them are "
       "answered RESOURCE_EXHAUSTED; a valid token is still let in. 0 means no limit. A proxy is "
       "one address.",
       &Options::auth_failures_per_minute, 0, kMaxInt},
      {"auth_finish_revoked_calls", "BOOL", kAccess,
       "Calls of a tenant that --auth_tokens_file no longer lets in may finish. Otherwise they end "
       "with UNAUTHENTICATED.",
       &Options::auth_finish_revoked_calls},
      {"open_reflection", "BOOL", kAccess,
       "Reflection answers calls without a token or a tenant's certificate.",
       &Options::open_reflection},
      {"tls_cert", "FILE", kAccess,
       "The gRPC port uses TLS with this certificate chain (PEM), which is read again when it, "
       "--tls_key or --tls_client_ca changes. If empty, there is no TLS.",
       &Options::tls_cert},
      {"tls_key", "FILE", kAccess, "This file holds the private key (PEM) of --tls_cert.",
       &Options::tls_key},
      {"tls_client_ca", "FILE", kAccess,
       "Clients must show a certificate of these authorities (PEM). Its subject names the tenant "
       "unless --auth_tokens_file does.",
       &Options::tls_client_ca},
      {"allow_plaintext", "BOOL", kAccess,
       "The daemon may listen without TLS on an address that other machines can reach.",
       &Options::allow_plaintext},

      {"log_format",
       "text|json",
       kLogs,
       "The log on stderr has one line per event in either format.",
       &Options::log_format,
       -kNoBound,
       kNoBound,
       {"text", "json"}},
      {"log_level",
       "LEVEL",
       kLogs,
       "The log has events of this level and above: debug, info (one line per call), warn or "
       "error.",
       &Options::log_level,
       -kNoBound,
       kNoBound,
       {"debug", "info", "warn", "error"}},
      {"vllm_metrics", "BOOL", kLogs,
       "/metrics also has the names that existing dashboards read, which begin with vllm:.",
       &Options::vllm_metrics},
  };
  return *flags;
}

}  // namespace sluice
