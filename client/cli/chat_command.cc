// sluice chat.
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/cli/chat.h"
#include "client/cli/command.h"
#include "client/cli/generate_flags.h"

namespace sluice {
namespace {

int Run(const Command& command, Invocation* call) {
  v1::GenerateRequest turn;
  FlagSet flags;
  flags.Section("Session");
  flags.Add({"durable", "", "Each turn ends only when it is safe on the daemon's disk.",
             ToBool([&](bool value) { turn.set_durable(value); })});
  AddSamplingFlags(turn.mutable_sampling(), &flags);
  AddStopFlags(turn.mutable_stop(), &flags);
  const std::string details = absl::StrCat(
      "Tells a story with the model in turns. The story is a session and stays when you leave:\n"
      "sluice chat ID goes on with it, and begins one of that name when there is none. Standard\n"
      "input may be a pipe; then only the model's text is printed.\n\n",
      Chat::Help());
  Command described = command;
  described.details = absl::string_view(details).substr(0, details.size() - 1);
  if (const std::optional<int> code = ParseCommandLine(described, &flags, call)) return *code;
  const Io& io = call->io;
  if (call->args.size() > 1) return UsageError(command, io, "takes one session's id, or none");
  const std::string id = call->args.empty() ? "" : call->args[0];

  Chat chat(call->MakeClient(), call->Call(), turn, io);
  absl::Status status = chat.Open(id);
  if (!status.ok()) return CallFailed(io, status);
  if (io.in_is_terminal) {
    io.err << "(story " << chat.session().id() << ", " << chat.session().position()
           << " tokens; /help says what you can do)\n";
  }
  status = chat.Run();
  if (!status.ok()) return CallFailed(io, status);
  if (id != chat.session().id()) {
    io.err << "(sluice chat " << chat.session().id() << " goes on with this story)\n";
  }
  return io.out.good() ? kExitOk : kExitFailed;
}

}  // namespace

const Command kChatCommand = {
    "chat",
    "tells a story in turns, in a session",
    "[FLAGS] [ID]",
    "",
    "  sluice chat\n"
    "  sluice chat story --temperature=0.8 --max-new-tokens=60\n"
    "  printf 'It was a dark night\\n/fork other\\nThe wind\\n' | sluice chat story",
    Run};

}  // namespace sluice
