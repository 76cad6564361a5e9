#include "server/options.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <utility>
#include <variant>

#include "absl/flags/marshalling.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "server/exit_codes.h"

#ifndef SLUICE_VERSION
#error "SLUICE_VERSION comes from CMake"
#endif

namespace sluice {
namespace {

using Options = ServerOptions;
using Field = std::variant<std::string Options::*, int32_t Options::*, int64_t Options::*,
                           bool Options::*, absl::Duration Options::*>;

constexpr double kNoBound = std::numeric_limits<double>::infinity();
constexpr int kMaxFlagfileDepth = 4;

struct Flag {
  const char* name;
  const char* metavar;
  const char* group;
  const char* help;
  Field field;
  double min = -kNoBound;  // of a number, or of a duration in seconds
  double max = kNoBound;
  std::vector<const char*> choices = {};  // of a string; empty: any
};

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

const std::vector<Flag>& Flags() {
  static const auto* flags = new std::vector<Flag>{
      {"model", "DIR", kServing,
       "checkpoint directory: config.json, *.safetensors and a tokenizer (or see --tokenizer); "
       "required",
       &Options::model},
      {"model_name", "NAME", kServing, "name of the model in the API; empty: the directory's name",
       &Options::model_name},
      {"tokenizer", "DIR|none", kServing,
       "directory of the tokenizer; none: the model is served by token ids alone, and fields that "
       "hold text are refused; empty: the model's directory",
       &Options::tokenizer},
      {"listen", "HOST:PORT", kServing, "address of the gRPC services; port 0 picks a free one",
       &Options::listen},
      {"admin_listen", "HOST:PORT", kServing,
       "address of /metrics, /healthz and /readyz; plain HTTP, so beyond loopback it needs "
       "--allow_plaintext; port 0 picks a free one; empty: none",
       &Options::admin_listen},
      {"http_listen", "HOST:PORT", kServing,
       "address of the OpenAI-compatible HTTP API and its page; plain HTTP, so beyond loopback it "
       "needs --allow_plaintext; port 0 picks a free one; empty: none",
       &Options::http_listen},
      {"chat_template", "TEXT", kServing,
       "what the HTTP API writes for each message of a chat; {role} and {content} stand for the "
       "message's, \\n, \\t and \\\\ are escapes",
       &Options::chat_template},
      {"device",
       "auto|cpu|cuda[:N]",
       kServing,
       "where the model runs; auto: on the first GPU if there is one that can, else on the CPU",
       &Options::device,
       -kNoBound,
       kNoBound,
       {"auto", "cpu", "cuda", "cuda:N"}},
      {"threads", "N", kServing, "threads that compute on the CPU; 0: one per core",
       &Options::threads, 0, 1024},
      {"step_timeout", "DURATION", kServing,
       "a step of the device that takes longer has hung: the daemon is not ready and ends with "
       "exit "
       "code 70",
       &Options::step_timeout, 0.001, kNoBound},
      {"batch_invariant", "BOOL", kServing,
       "on a GPU: a request's bits never depend on what else is in the batch (on the CPU it holds "
       "always)",
       &Options::batch_invariant},

      {"max_batch_tokens", "N", kMemory,
       "tokens of one step; at least the number of slots and one chunk of a prompt; 0: 512 on the "
       "CPU, 4096 on a GPU",
       &Options::max_batch_tokens, 0, 1 << 20},
      {"device_state_bytes", "N", kMemory,
       "memory for states, which bounds the sequences that run at once; 0: 64 of them on the CPU, "
       "or what a quarter of the memory holds; 1024 on a GPU, or what its free memory holds; never "
       "more of them than --max_batch_tokens has room for",
       &Options::device_state_bytes, 0, 1024 * kTebi},
      {"memory_limit", "N", kMemory,
       "bytes of memory that the process may have; above nine tenths of them no call is admitted "
       "beside those that run; 0: what its cgroup allows, and no bound where that has none",
       &Options::memory_limit, 0, 1024 * kTebi},

      {"host_state_bytes", "N", kSessions,
       "host memory for states: of sessions that are not on the device, of what prompts begin "
       "with, "
       "and of calls whose reader is too slow",
       &Options::host_state_bytes, 0, 1024 * kTebi},
      {"disk_state_bytes", "N", kSessions,
       "room for states in --session_dir; of one that replaces another, both are there for a "
       "moment",
       &Options::disk_state_bytes, 0, 1024 * kTebi},
      {"prefix_cache_bytes", "N", kSessions,
       "part of --host_state_bytes that may keep what prompts begin with, so that it is computed "
       "once; 0: nothing is kept",
       &Options::prefix_cache_bytes, 0, 1024 * kTebi},
      {"session_dir", "DIR", kSessions,
       "keeps sessions over restarts; one daemon has it for itself unless --session_dir_shared; "
       "empty: sessions end with the daemon",
       &Options::session_dir},
      {"session_dir_shared", "BOOL", kSessions,
       "daemons that all say this share --session_dir: a call on a session waits for one that "
       "another daemon runs on it, as for one of its own",
       &Options::session_dir_shared},
      {"session_dir_wait", "DURATION", kSessions,
       "at the start, how long to wait for a daemon that has --session_dir and still drains; then "
       "the start fails with exit code 2 and names that daemon's process",
       &Options::session_dir_wait, 0, kNoBound},
      {"state_key_file", "FILE", kSessions,
       "keys that exported sessions are signed with, one a line, 32 bytes or more in hex (openssl "
       "rand -hex 32); the first signs, all verify; empty: no export and no import",
       &Options::state_key_file},
      {"session_ttl", "DURATION", kSessions,
       "a session that names no time to live ends when unused for this long; inf: never",
       &Options::session_ttl, 0.001, kNoBound},
      {"max_sessions", "N", kSessions, "sessions at once; 0: there are none",
       &Options::max_sessions, 0, kMaxInt},
      {"max_sessions_per_tenant", "N", kSessions, "of them, those of one tenant",
       &Options::max_sessions_per_tenant, 0, kMaxInt},

      {"max_prompt_tokens", "N", kRequest, "tokens in a prompt", &Options::max_prompt_tokens, 1,
       kMaxInt},
      {"max_new_tokens", "N", kRequest, "largest stop.max_new_tokens", &Options::max_new_tokens, 1,
       kMaxInt},
      {"max_sequences", "N", kRequest, "largest n; never more than there are slots",
       &Options::max_sequences, 1, 4096},
      {"max_stop_strings", "N", kRequest, "number of stop.strings", &Options::max_stop_strings, 0,
       1024},
      {"max_logprobs", "N", kRequest, "alternatives per token", &Options::max_logprobs, 0, 20},
      {"max_message_bytes", "N", kRequest, "size of one message, either way",
       &Options::max_message_bytes, 65536, 256 << 20},

      {"max_streams", "N", kLoad, "calls of Generate and Score at once", &Options::max_streams, 1,
       1 << 20},
      {"max_queued_requests", "N", kLoad, "of them, those that wait for a slot",
       &Options::max_queued_requests, 1, 1 << 20},
      {"max_queued_tokens", "N", kLoad, "prompt tokens of all calls that wait for a slot",
       &Options::max_queued_tokens, 1, kTebi},
      {"ring_events", "N", kLoad,
       "events a stream holds for a slow reader before its sequence is paused",
       &Options::ring_events, 16, 65536},
      {"write_stall", "DURATION", kLoad,
       "a stream whose reader takes nothing for this long is cancelled", &Options::write_stall,
       0.001, kNoBound},
      {"drain_timeout", "DURATION", kLoad,
       "on SIGTERM, running streams may take this long to finish", &Options::drain_timeout, 0,
       kNoBound},
      {"flush_timeout", "DURATION", kLoad,
       "and then the disk to take what sessions have not written yet; what it has not taken is "
       "lost, "
       "which the log and exit code 74 tell",
       &Options::flush_timeout, 0, kNoBound},

      {"max_connections", "N", kConnections,
       "connections at once; above three quarters of them the oldest without a finished call that "
       "was allowed are closed, above all of them the newcomer, and so is one that the process has "
       "no file descriptor for",
       &Options::max_connections, 1, kMaxInt},
      {"max_connections_per_peer", "N", kConnections,
       "of them, those from one address; 0: no bound (a proxy is one address)",
       &Options::max_connections_per_peer, 0, kMaxInt},
      {"max_unclaimed_bytes", "N", kConnections,
       "what a gRPC connection may send beyond its calls, each of which may take "
       "--max_message_bytes and --max_metadata_bytes: a connection that floods is closed; 0: no "
       "bound",
       &Options::max_unclaimed_bytes, 0, kTebi},
      {"max_metadata_bytes", "N", kConnections, "metadata of one call",
       &Options::max_metadata_bytes, 1024, 1 << 20},
      {"max_streams_per_connection", "N", kConnections,
       "calls at once on one connection; more wait in the client",
       &Options::max_streams_per_connection, 1, kMaxInt},
      {"keepalive_time", "DURATION", kConnections, "a silent connection is pinged this often",
       &Options::keepalive_time, 1, kNoBound},
      {"keepalive_timeout", "DURATION", kConnections,
       "and closed when no answer came for this long", &Options::keepalive_timeout, 0.001,
       kNoBound},
      {"max_connection_age", "DURATION", kConnections,
       "a connection takes no new calls after this, so that clients spread over new daemons; inf: "
       "never",
       &Options::max_connection_age, 1, kNoBound},
      {"max_connection_age_grace", "DURATION", kConnections,
       "its running calls may go on for this much longer", &Options::max_connection_age_grace,
       0.001, kNoBound},

      {"auth_tokens_file", "FILE", kAccess,
       "tenants with their tokens and limits; read again when it changes; empty: everybody may "
       "call",
       &Options::auth_tokens_file},
      {"auth_failures_per_minute", "N", kAccess,
       "unauthenticated calls of one address before more of them are answered RESOURCE_EXHAUSTED; "
       "a "
       "valid token is let in all the same; 0: no bound (a proxy is one address)",
       &Options::auth_failures_per_minute, 0, kMaxInt},
      {"auth_finish_revoked_calls", "BOOL", kAccess,
       "calls of a tenant that --auth_tokens_file no longer lets in may finish; otherwise they end "
       "with UNAUTHENTICATED",
       &Options::auth_finish_revoked_calls},
      {"open_reflection", "BOOL", kAccess,
       "reflection answers calls without a token or a tenant's certificate",
       &Options::open_reflection},
      {"tls_cert", "FILE", kAccess,
       "certificate chain (PEM) of the gRPC port; read again, with the two below, when one of them "
       "changes; empty: no TLS",
       &Options::tls_cert},
      {"tls_key", "FILE", kAccess, "its private key (PEM)", &Options::tls_key},
      {"tls_client_ca", "FILE", kAccess,
       "clients must show a certificate of these authorities (PEM); its subject names the tenant "
       "unless --auth_tokens_file does",
       &Options::tls_client_ca},
      {"allow_plaintext", "BOOL", kAccess,
       "listen without TLS on an address that other machines can reach", &Options::allow_plaintext},

      {"log_format",
       "text|json",
       kLogs,
       "one line per event on stderr, either way",
       &Options::log_format,
       -kNoBound,
       kNoBound,
       {"text", "json"}},
      {"log_level",
       "LEVEL",
       kLogs,
       "debug, info (one line per call), warn or error",
       &Options::log_level,
       -kNoBound,
       kNoBound,
       {"debug", "info", "warn", "error"}},
      {"vllm_metrics", "BOOL", kLogs, "also exports what existing dashboards read as vllm:...",
       &Options::vllm_metrics},
  };
  return *flags;
}

const Flag* FindFlag(absl::string_view name) {
  for (const Flag& flag : Flags()) {
    if (name == flag.name) return &flag;
  }
  return nullptr;
}

std::string FormatBound(double bound, bool duration) {
  if (duration) return absl::FormatDuration(absl::Seconds(bound));
  return absl::StrFormat("%.0f", bound);
}

absl::Status CheckBounds(const Flag& flag, double value, bool duration) {
  if (value >= flag.min && value <= flag.max) return absl::OkStatus();
  if (flag.max == kNoBound) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be at least ", FormatBound(flag.min, duration)));
  }
  return absl::InvalidArgumentError(absl::StrCat("must be in [", FormatBound(flag.min, duration),
                                                 ", ", FormatBound(flag.max, duration), "]"));
}

// A choice that ends in ":N" stands for every small number in N's place.
bool Matches(absl::string_view choice, absl::string_view text) {
  if (!absl::ConsumeSuffix(&choice, ":N")) return text == choice;
  return absl::ConsumePrefix(&text, choice) && absl::ConsumePrefix(&text, ":") && !text.empty() &&
         text.size() <= 4 && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

absl::Status Assign(const Flag& flag, const std::string& text, std::string* value) {
  const auto is = [&](const char* choice) { return Matches(choice, text); };
  if (!flag.choices.empty() && std::none_of(flag.choices.begin(), flag.choices.end(), is)) {
    return absl::InvalidArgumentError(absl::StrCat("must be ", absl::StrJoin(flag.choices, ", ")));
  }
  *value = text;
  return absl::OkStatus();
}

template <typename Number>
absl::Status Assign(const Flag& flag, const std::string& text, Number* value) {
  std::string error;
  Number parsed{};
  if (!absl::ParseFlag(text, &parsed, &error)) {
    return absl::InvalidArgumentError(
        absl::StrCat("is not a whole number up to ", std::numeric_limits<Number>::max()));
  }
  absl::Status status = CheckBounds(flag, static_cast<double>(parsed), false);
  if (status.ok()) *value = parsed;
  return status;
}

absl::Status Assign(const Flag&, const std::string& text, bool* value) {
  std::string error;
  if (absl::ParseFlag(text, value, &error)) return absl::OkStatus();
  return absl::InvalidArgumentError("must be true or false");
}

absl::Status Assign(const Flag& flag, const std::string& text, absl::Duration* value) {
  std::string error;
  absl::Duration parsed;
  if (!absl::AbslParseFlag(text, &parsed, &error)) {
    return absl::InvalidArgumentError("is not a duration such as 500ms, 10s, 1h30m or inf");
  }
  absl::Status status = CheckBounds(flag, absl::ToDoubleSeconds(parsed), true);
  if (status.ok()) *value = parsed;
  return status;
}

// `origin`: "--" for the command line, or the file or variable the value comes from.
absl::Status Set(const Flag& flag, absl::string_view origin, const std::string& text,
                 Options* options) {
  const absl::Status status =
      std::visit([&](auto field) { return Assign(flag, text, &(options->*field)); }, flag.field);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat(origin, flag.name, " is '", text, "', ", status.message()));
}

template <typename Value>
std::string Unparse(const Value& value) {
  return absl::UnparseFlag(value);
}
std::string Unparse(absl::Duration value) { return absl::AbslUnparseFlag(value); }

std::optional<double> Number(const std::string&) { return std::nullopt; }
std::optional<double> Number(bool) { return std::nullopt; }
std::optional<double> Number(int32_t value) { return value; }
std::optional<double> Number(int64_t value) { return static_cast<double>(value); }
std::optional<double> Number(absl::Duration value) { return absl::ToDoubleSeconds(value); }

std::string ValueText(const Flag& flag, const Options& options) {
  return std::visit([&](auto field) { return Unparse(options.*field); }, flag.field);
}

std::string EnvironmentName(const Flag& flag) {
  return absl::StrCat("SLUICE_", absl::AsciiStrToUpper(flag.name));
}

class Parser {
 public:
  explicit Parser(CommandLine* out) : out_(*out) {}

  // `origin` ends up before the flag's name in messages: "--", or "FILE: --".
  absl::Status Parse(absl::Span<const std::string> args, absl::string_view origin, int depth) {
    for (size_t i = 0; i < args.size(); ++i) {
      absl::string_view arg = args[i];
      if (!absl::ConsumePrefix(&arg, "--") && !absl::ConsumePrefix(&arg, "-")) {
        return absl::InvalidArgumentError(
            absl::StrCat("'", args[i], "' is not a flag; see --help"));
      }
      std::optional<std::string> value;
      const size_t equals = arg.find('=');
      if (equals != absl::string_view::npos) {
        value = std::string(arg.substr(equals + 1));
        arg = arg.substr(0, equals);
      }
      if (TakeAction(arg, value)) continue;
      if (arg == "flagfile") {
        if (!value.has_value() && i + 1 < args.size()) value = args[++i];
        absl::Status status = ParseFile(value.value_or(""), depth + 1);
        if (!status.ok()) return status;
        continue;
      }
      const Flag* flag = FindFlag(arg);
      if (flag == nullptr && !value.has_value() && absl::ConsumePrefix(&arg, "no")) {
        flag = FindFlag(arg);
        if (flag != nullptr && !IsBool(*flag)) flag = nullptr;
        value = "false";
      }
      if (flag == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat("unknown flag '", args[i], "'; see --help"));
      }
      if (!value.has_value() && IsBool(*flag)) value = "true";
      if (!value.has_value() && i + 1 < args.size()) value = args[++i];
      if (!value.has_value()) {
        return absl::InvalidArgumentError(absl::StrCat(origin, flag->name, " needs a value"));
      }
      absl::Status status = Set(*flag, origin, *value, &out_.options);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  static bool IsBool(const Flag& flag) {
    return std::holds_alternative<bool Options::*>(flag.field);
  }

  bool TakeAction(absl::string_view name, const std::optional<std::string>& value) {
    if (name == "help") {
      out_.action = value == "markdown"  ? CommandLineAction::kHelpMarkdown
                    : value == "metrics" ? CommandLineAction::kHelpMetrics
                                         : CommandLineAction::kHelp;
    } else if (name == "version") {
      out_.action = CommandLineAction::kVersion;
    } else {
      return false;
    }
    return true;
  }

  // One flag a line, as on the command line; empty lines and lines that begin with # mean nothing.
  absl::Status ParseFile(const std::string& path, int depth) {
    if (depth > kMaxFlagfileDepth) {
      return absl::InvalidArgumentError(absl::StrCat("--flagfile ", path, " is nested too deep"));
    }
    std::ifstream file(path);
    if (!file) {
      return absl::InvalidArgumentError(
          absl::StrCat("--flagfile '", path, "': ", std::strerror(errno)));
    }
    std::vector<std::string> args;
    for (std::string line; std::getline(file, line);) {
      const absl::string_view stripped = absl::StripAsciiWhitespace(line);
      if (!stripped.empty() && stripped[0] != '#') args.emplace_back(stripped);
    }
    return Parse(args, absl::StrCat(path, ": --"), depth);
  }

  CommandLine& out_;
};

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(
    absl::Span<const std::string> args, const std::function<const char*(const char*)>& getenv) {
  CommandLine out;
  for (const Flag& flag : Flags()) {
    const char* value = getenv(EnvironmentName(flag).c_str());
    if (value == nullptr) continue;
    absl::Status status =
        Set(flag, absl::StrCat("environment ", EnvironmentName(flag), ": "), value, &out.options);
    if (!status.ok()) return status;
  }
  absl::Status status = Parser(&out).Parse(args, "--", 0);
  if (!status.ok()) return status;
  if (out.action == CommandLineAction::kServe && out.options.model.empty()) {
    return absl::InvalidArgumentError("--model=DIR is required; see --help");
  }
  return out;
}

std::string HelpText() {
  std::string out =
      "sluiced serves a Gated Linear Attention language model over gRPC.\n\n"
      "  sluiced --model=DIR [--listen=HOST:PORT] ...\n\n"
      "Each flag can also be given as SLUICE_<FLAG> in the environment, or as a line of "
      "--flagfile=FILE; the\n"
      "command line wins.\n\nExit codes:\n";
  for (const ExitCode& exit : kExitCodes) {
    absl::StrAppend(&out, "  ", absl::StrFormat("%-3d", exit.code), " ", exit.meaning, "\n");
  }
  const Options defaults;
  absl::string_view group;
  for (const Flag& flag : Flags()) {
    if (group != flag.group) absl::StrAppend(&out, "\n", group = flag.group, ":\n");
    const std::string value = ValueText(flag, defaults);
    absl::StrAppend(&out, "  --", flag.name, "=", flag.metavar);
    if (!value.empty()) absl::StrAppend(&out, "  (default: ", value, ")");
    absl::StrAppend(&out, "\n      ", flag.help, "\n");
  }
  absl::StrAppend(
      &out, "\nAlso:\n  --flagfile=FILE, --version, --help, --help=markdown, --help=metrics\n");
  return out;
}

std::string HelpMarkdown() {
  std::string out = "| flag | default | meaning |\n|---|---|---|\n";
  const Options defaults;
  absl::string_view group;
  for (const Flag& flag : Flags()) {
    if (group != flag.group) absl::StrAppend(&out, "| **", group = flag.group, "** | | |\n");
    const std::string value = ValueText(flag, defaults);
    absl::StrAppend(&out, "| `--", flag.name, "=",
                    absl::StrReplaceAll(flag.metavar, {{"|", "\\|"}}), "` | ",
                    value.empty() ? "" : absl::StrCat("`", value, "`"), " | ", flag.help, " |\n");
  }
  return out;
}

std::string Version() { return SLUICE_VERSION; }

std::vector<FlagValue> FlagValues(const ServerOptions& options) {
  std::vector<FlagValue> out;
  for (const Flag& flag : Flags()) {
    const auto number = [&](auto field) { return Number(options.*field); };
    out.push_back({flag.name, ValueText(flag, options), std::visit(number, flag.field)});
  }
  return out;
}

}  // namespace sluice
