#include "client/cli/run.h"

#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"

namespace sluice {
namespace {

constexpr std::array<const Command*, 10> kCommands = {
    &kGenerateCommand,   &kChatCommand,  &kSessionCommand, &kScoreCommand,  &kTokenizeCommand,
    &kDetokenizeCommand, &kModelCommand, &kInspectCommand, &kHealthCommand, &kBenchCommand};

constexpr absl::string_view kSee = " (see sluice --help)\n";

std::string Help(const FlagSet& flags) {
  std::string help =
      "Usage: sluice [--address=HOST:PORT] COMMAND ...\n\nTalks to sluiced.\n\nCommands:\n";
  for (const Command* command : kCommands) {
    std::string name(command->name);
    name.resize(12, ' ');
    absl::StrAppend(&help, "  ", name, command->summary, "\n");
  }
  absl::StrAppend(&help, R"(
Examples:
  sluice generate "Once upon a time"
  sluice generate --json --max-new-tokens=20 --temperature=0 "Once upon a time"
  sluice chat story
  cat book.txt | sluice score --summary
  sluice inspect deploy/models/classics-12m
  sluice --address=gpu-3:50051 bench --concurrency=16 --requests=200

sluice COMMAND --help says more. Exit codes: 0 done, 1 the call failed, 2 bad command line or
(inspect) no model that can be served, 130 interrupted by Ctrl-C.
)",
                  flags.Help());
  return help;
}

const Command* FindCommand(absl::string_view name) {
  for (const Command* command : kCommands) {
    if (command->name == name) return command;
  }
  return nullptr;
}

}  // namespace

int RunSluice(const std::vector<std::string>& args, const Io& io) {
  Connection connection;
  bool help = false;
  FlagSet flags;
  AddConnectionFlags(&flags, &connection);
  flags.Add({"help", "", "Prints this.", ToBool([&help](bool value) { help = value; })});
  absl::Status status;
  for (const char* name :
       {"address", "timeout", "token", "traceparent", "tls", "tls-ca", "tls-cert", "tls-key"}) {
    status.Update(flags.ParseEnvironment(name, io.environment));
  }
  absl::StatusOr<std::vector<std::string>> rest = flags.Parse(args, FlagSet::Arguments::kLast);
  status.Update(rest.status());
  if (!status.ok()) {
    io.err << "sluice: " << status.message() << kSee;
    return kExitUsage;
  }
  if (help || (!rest->empty() && rest->front() == "help")) {
    io.out << Help(flags);
    return kExitOk;
  }
  if (rest->empty()) {
    io.err << "sluice: which command?" << kSee;
    return kExitUsage;
  }
  const Command* command = FindCommand(rest->front());
  if (command == nullptr) {
    io.err << "sluice: unknown command '" << rest->front() << "'" << kSee;
    return kExitUsage;
  }
  rest->erase(rest->begin());
  Invocation call{io, std::move(connection), *std::move(rest)};
  return command->run(*command, &call);
}

}  // namespace sluice
