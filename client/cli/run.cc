#include "client/cli/run.h"

#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "server/flags/manual.h"
#include "server/flags/near_name.h"

namespace sluice {
namespace {

constexpr std::array<const Command*, 13> kCommands = {
    &kRunCommand,      &kGenerateCommand,   &kChatCommand,  &kSessionCommand, &kScoreCommand,
    &kTokenizeCommand, &kDetokenizeCommand, &kModelCommand, &kInspectCommand, &kCheckCommand,
    &kHealthCommand,   &kPsCommand,         &kBenchCommand};

// The connection's flags that can come from the environment.
constexpr std::array<const char*, 8> kEnvironment = {
    "address", "timeout", "token", "traceparent", "tls", "tls-ca", "tls-cert", "tls-key"};

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
  sluice run
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

std::vector<std::string> CommandNames() {
  std::vector<std::string> names;
  for (const Command* command : kCommands) names.emplace_back(command->name);
  return names;
}

std::string VariableOf(absl::string_view flag) {
  return absl::StrCat("SLUICE_", absl::AsciiStrToUpper(absl::StrReplaceAll(flag, {{"-", "_"}})));
}

// A variable whose name is nearly that of a flag was meant to be it. Variables of other names are
// the daemon's, which knows them.
absl::Status CheckVariables(const std::vector<std::string>& variables) {
  std::vector<std::string> known;
  for (const char* flag : kEnvironment) known.push_back(VariableOf(flag).substr(7));
  for (absl::string_view variable : variables) {
    if (!absl::ConsumePrefix(&variable, "SLUICE_")) continue;
    const std::string meant = NearName(variable, known);
    if (meant.empty() || meant == variable) continue;
    return absl::InvalidArgumentError(absl::StrCat("environment SLUICE_", variable,
                                                   ": no flag has this name",
                                                   DidYouMean(variable, known, "SLUICE_")));
  }
  return absl::OkStatus();
}

CommandManual Describe(const Command& command, const Io& io) {
  CommandManual manual;
  manual.name = std::string(command.name);
  manual.summary = std::string(command.summary);
  Invocation call{io, {}, {}};
  call.describe = [&manual](const Command& described, const FlagSet& flags) {
    manual.usage = std::string(described.usage);
    manual.details = std::string(described.details);
    manual.examples = std::string(described.examples);
    manual.flags = flags.Manual();
  };
  command.run(command, &call);
  return manual;
}

ProgramManual Manual(const FlagSet& flags, const Io& io) {
  ProgramManual manual;
  manual.name = "sluice";
  manual.version = SLUICE_VERSION;
  manual.summary = "talks to sluiced, the server of language models";
  manual.usage = "[--address=HOST:PORT] COMMAND ...";
  manual.description = "Runs and calls sluiced. The daemon's flags are in sluiced(1).";
  manual.flags = flags.Manual();
  for (const Command* command : kCommands) {
    manual.commands.push_back(Describe(*command, io));
    if (command != &kSessionCommand) continue;
    for (const Command& sub : SessionCommands()) manual.commands.push_back(Describe(sub, io));
  }
  manual.exit_codes = {
      {kExitOk, "The command did what it was told."},
      {kExitFailed, "The call failed; stderr says why."},
      {kExitUsage, "The command line is bad, or inspect found no model that can be served."},
      {130, "Ctrl-C ended it."}};
  return manual;
}

// What --help=FORM prints; the build makes the man page and the completions of it.
std::string HelpIn(absl::string_view form, const FlagSet& flags, const Io& io) {
  if (form == "man") return ManPage(Manual(flags, io));
  if (form == "bash") return BashCompletion(Manual(flags, io));
  if (form == "zsh") return ZshCompletion(Manual(flags, io));
  return Help(flags);
}

}  // namespace

int RunSluice(const std::vector<std::string>& args, const Io& io) {
  Connection connection;
  std::string help;
  bool version = false;
  FlagSet flags;
  AddConnectionFlags(&flags, &connection);
  flags.Add({"help", "",
             "Prints this; so does -h. --help=bash, zsh or man prints completions or the man page.",
             [&help](absl::string_view text) {
               help = text == "false" ? "" : std::string(text);
               return absl::OkStatus();
             }});
  flags.Add(
      {"version", "", "Prints the version.", ToBool([&version](bool value) { version = value; })});
  absl::Status status = CheckVariables(io.variables);
  for (const char* name : kEnvironment) {
    status.Update(flags.ParseEnvironment(name, io.environment));
  }
  absl::StatusOr<std::vector<std::string>> rest = flags.Parse(args, FlagSet::Arguments::kLast);
  status.Update(rest.status());
  if (!status.ok()) {
    io.err << "sluice: " << status.message() << kSee;
    return kExitUsage;
  }
  if (!help.empty() || (!rest->empty() && rest->front() == "help")) {
    io.out << HelpIn(help, flags, io);
    return kExitOk;
  }
  if (version) {
    io.out << "sluice " << SLUICE_VERSION << "\n";
    return kExitOk;
  }
  if (rest->empty()) {
    io.err << "sluice: which command?" << kSee;
    return kExitUsage;
  }
  const Command* command = FindCommand(rest->front());
  if (command == nullptr) {
    io.err << "sluice: unknown command '" << rest->front() << "'"
           << DidYouMean(rest->front(), CommandNames(), "sluice ") << kSee;
    return kExitUsage;
  }
  rest->erase(rest->begin());
  Invocation call{io, std::move(connection), *std::move(rest)};
  return command->run(*command, &call);
}

}  // namespace sluice
