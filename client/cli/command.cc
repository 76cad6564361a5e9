#include "client/cli/command.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace sluice {

void AddConnectionFlags(FlagSet* flags, Connection* connection) {
  flags->Section("Connection (these may stand before the command)");
  flags->Add({"address", "HOST:PORT",
              "Calls the daemon at this address; unix:PATH works too. Default: $SLUICE_ADDRESS, or "
              "127.0.0.1:50051.",
              ToString([connection](std::string text) { connection->address = std::move(text); })});
  flags->Add(
      {"timeout", "DURATION",
       "Sets the deadline of each call, such as 500ms or 1m. Default: $SLUICE_TIMEOUT, or none.",
       ToDuration([connection](absl::Duration value) { connection->timeout = value; })});
  flags->Add({"token", "TOKEN",
              "Sends this bearer token, for a daemon that wants one. Default: $SLUICE_TOKEN, which "
              "other users cannot see in the list of processes.",
              ToString([connection](std::string text) { connection->token = std::move(text); })});
  flags->Add(
      {"traceparent", "HEADER",
       "Names the trace that the call belongs to (W3C Trace Context); the daemon logs it. Default: "
       "$SLUICE_TRACEPARENT.",
       ToString([connection](std::string text) { connection->traceparent = std::move(text); })});
  flags->Add({"tls", "",
              "Uses TLS, with the system's authorities unless --tls-ca names others. Default: "
              "$SLUICE_TLS.",
              ToBool([connection](bool value) { connection->tls = value; })});
  TlsFiles* files = &connection->tls_files;
  flags->Add({"tls-ca", "FILE", "Uses TLS with these authorities (PEM). Default: $SLUICE_TLS_CA.",
              ToString([files](std::string text) { files->ca = std::move(text); })});
  flags->Add({"tls-cert", "FILE",
              "Uses TLS with this certificate of the client (PEM). Default: $SLUICE_TLS_CERT.",
              ToString([files](std::string text) { files->cert = std::move(text); })});
  flags->Add({"tls-key", "FILE",
              "Holds the private key (PEM) of --tls-cert. Default: $SLUICE_TLS_KEY.",
              ToString([files](std::string text) { files->key = std::move(text); })});
}

std::optional<int> ParseLocalCommandLine(const Command& command, FlagSet* flags, Invocation* call) {
  bool help = false;
  flags->Add(
      {"help", "", "Prints this; so does -h.", ToBool([&help](bool value) { help = value; })});
  if (call->describe != nullptr) {
    call->describe(command, *flags);
    return kExitOk;
  }
  absl::StatusOr<std::vector<std::string>> rest = flags->Parse(call->args);
  if (!rest.ok()) return UsageError(command, call->io, rest.status().message());
  if (help) {
    call->io.out << "Usage: sluice " << command.name << " " << command.usage << "\n\n"
                 << command.details << "\n\nExamples:\n"
                 << command.examples << "\n"
                 << flags->Help();
    return kExitOk;
  }
  call->args = *std::move(rest);
  return std::nullopt;
}

std::optional<int> ParseCommandLine(const Command& command, FlagSet* flags, Invocation* call) {
  AddConnectionFlags(flags, &call->connection);
  if (const std::optional<int> exit_code = ParseLocalCommandLine(command, flags, call))
    return exit_code;
  const TlsFiles& files = call->connection.tls_files;
  if (call->connection.tls || !files.ca.empty() || !files.cert.empty() || !files.key.empty()) {
    absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> credentials = TlsCredentials(files);
    if (!credentials.ok()) return UsageError(command, call->io, credentials.status().message());
    call->credentials = *std::move(credentials);
  }
  return std::nullopt;
}

int UsageError(const Command& command, const Io& io, absl::string_view message) {
  io.err << "sluice " << command.name << ": " << message << " (see sluice " << command.name
         << " --help)\n";
  return kExitUsage;
}

int CallFailed(const Io& io, const absl::Status& status) {
  if (absl::IsCancelled(status) && io.cancellation != nullptr && io.cancellation->cancelled()) {
    io.err << "sluice: interrupted\n";
    return kExitFailed;
  }
  io.err << "sluice: " << status.message() << (status.message().empty() ? "" : " ") << "("
         << absl::StatusCodeToString(status.code()) << ")\n";
  return kExitFailed;
}

}  // namespace sluice
