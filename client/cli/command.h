// Code that the subcommands of `sluice` share.
#ifndef SLUICE_CLIENT_CLI_COMMAND_H_
#define SLUICE_CLIENT_CLI_COMMAND_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/cli/flags.h"
#include "client/cli/io.h"
#include "client/client.h"
#include "client/credentials.h"

namespace sluice {

// The flags that every command has, and that may stand before its name.
struct Connection {
  std::string address = "127.0.0.1:50051";
  absl::Duration timeout = absl::InfiniteDuration();
  std::string token;
  std::string traceparent;
  bool tls = false;  // implied by any of the files
  TlsFiles tls_files;
};

void AddConnectionFlags(FlagSet* flags, Connection* connection);

struct Command;

// One run of one command.
struct Invocation {
  const Io& io;
  Connection connection;
  std::vector<std::string> args;
  std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr;  // once the flags are parsed
  // If set, the command runs no further than to here, with its flags: this is how the manual reads
  // them.
  std::function<void(const Command& command, const FlagSet& flags)> describe = nullptr;

  Client MakeClient() const { return Client({connection.address, credentials, connection.token}); }
  CallOptions Call() const {
    return {connection.timeout, io.cancellation, "", connection.traceparent};
  }
};

struct Command {
  absl::string_view name;
  absl::string_view summary;   // one line, for the list of commands
  absl::string_view usage;     // what follows "sluice <name>"
  absl::string_view details;   // paragraphs
  absl::string_view examples;  // lines, indented by two
  int (*run)(const Command& command, Invocation* call);
};

// The commands, in the order of the help.
extern const Command kRunCommand;
extern const Command kGenerateCommand;
extern const Command kChatCommand;
extern const Command kScoreCommand;
extern const Command kTokenizeCommand;
extern const Command kDetokenizeCommand;
extern const Command kSessionCommand;
extern const Command kModelCommand;
extern const Command kInspectCommand;
extern const Command kCheckCommand;
extern const Command kHealthCommand;
extern const Command kPsCommand;
extern const Command kBenchCommand;

// The commands behind `sluice session`.
absl::Span<const Command> SessionCommands();

// Parses call->args, of which the other arguments remain. The exit code when that was all (--help,
// or an error that is printed), nullopt when the command can run.
std::optional<int> ParseCommandLine(const Command& command, FlagSet* flags, Invocation* call);

// The same for a command that calls no daemon: without the flags of a connection.
std::optional<int> ParseLocalCommandLine(const Command& command, FlagSet* flags, Invocation* call);

// Prints one line and returns kExitUsage or kExitFailed.
int UsageError(const Command& command, const Io& io, absl::string_view message);
int CallFailed(const Io& io, const absl::Status& status);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_COMMAND_H_
