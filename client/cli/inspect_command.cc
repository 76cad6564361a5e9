// sluice inspect: a model directory, without a daemon.
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "client/cli/command.h"
#include "client/cli/inspect_text.h"
#include "engine/inspect.h"

namespace sluice {
namespace {

int Run(const Command& command, Invocation* call) {
  bool json = false;
  std::optional<int64_t> memory;
  InspectOptions options;
  FlagSet flags;
  flags.Add({"memory", "BYTES",
             "Says how many working states fit into this much memory of a device beside the "
             "weights, such as 80G. The activations of a step need more on top.",
             ToSize([&memory](int64_t value) { memory = value; })});
  flags.Add({"check-values", "",
             "Reads all weights, as a start does: a NaN or an infinity among them is refused, and "
             "the fingerprint is known.",
             ToBool([&options](bool value) { options.check_values = value; })});
  flags.Add({"tokenizer", "DIR|none",
             "Takes another directory's tokenizer, or none, like the daemon's flag of that name.",
             ToString([&options](std::string value) { options.tokenizer = std::move(value); })});
  flags.Add({"json", "", "Prints one JSON object.", ToBool([&json](bool value) { json = value; })});
  if (const std::optional<int> exit_code = ParseLocalCommandLine(command, &flags, call))
    return *exit_code;
  if (call->args.size() != 1) return UsageError(command, call->io, "takes one directory");
  if (memory && *memory < 1) return UsageError(command, call->io, "--memory must be above 0");

  const Inspection model = InspectModel(call->args.front(), options);
  call->io.out << (json ? InspectionJson(model, memory) + "\n" : InspectionText(model, memory));
  return model.refusals.empty() ? kExitOk : kExitUsage;
}

}  // namespace

const Command kInspectCommand = {
    "inspect",
    "says what a model directory holds, costs, and whether it can be served",
    "[FLAGS] DIR",
    "Reads a checkpoint as sluiced would, without loading it, and calls no daemon. Prints what it\n"
    "is, what weights and states take, and what the loaders refuse. Exit code 2 when it cannot be\n"
    "served.",
    "  sluice inspect deploy/models/classics-12m\n"
    "  sluice inspect --memory=80G --json models/gla-1.3B | jq .devices\n"
    "  sluice inspect --check-values models/gla-1.3B",
    Run};

}  // namespace sluice
