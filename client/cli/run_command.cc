// sluice run.
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/chat.h"
#include "client/cli/command.h"
#include "client/cli/generate_call.h"
#include "client/cli/generate_flags.h"
#include "client/cli/input.h"
#include "client/cli/private_daemon.h"
#include "sluice/v1/generate.pb.h"

namespace sluice {
namespace {

bool IsDirectory(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

// A word with a slash in it, or one that begins as paths do, is no prompt.
bool LooksLikeAPath(absl::string_view word) {
  const bool one_word = !absl::StrContains(word, ' ') && !absl::StrContains(word, '\n');
  return one_word && (absl::StrContains(word, '/') || word == "." || word == "..");
}

// The model's directory: the first argument, which is taken away, or $SLUICE_MODEL, or the bundled
// one.
absl::StatusOr<std::string> TakeModel(std::vector<std::string>* args, const Io& io) {
  if (!args->empty() && IsDirectory(args->front())) {
    std::string model = std::move(args->front());
    args->erase(args->begin());
    return model;
  }
  if (!args->empty() && LooksLikeAPath(args->front())) {
    return absl::NotFoundError(absl::StrCat(args->front(), " is no directory"));
  }
  const char* model = io.environment ? io.environment("SLUICE_MODEL") : nullptr;
  if (model != nullptr && *model != '\0') return std::string(model);
  absl::StatusOr<std::string> bundled = FindBundledModel();
  if (bundled.ok()) return bundled;
  return absl::NotFoundError(
      absl::StrCat(bundled.status().message(), "; give a model's directory"));
}

int ChatInTerminal(const Client& client, const v1::GenerateRequest& turn, const Invocation& call) {
  Chat chat(client, call.Call(), turn, call.io);
  absl::Status status = chat.Open("");
  if (status.ok()) status = chat.Run();
  if (!status.ok()) return CallFailed(call.io, status);
  return call.io.out.good() ? kExitOk : kExitFailed;
}

int Run(const Command& command, Invocation* call) {
  v1::GenerateRequest request;
  std::vector<std::string> daemon_flags;
  FlagSet flags;
  flags.Section("Daemon");
  flags.Add({"daemon-flag", "FLAG",
             "Adds this flag to sluiced's command line, such as --device=cpu. The flag may be "
             "repeated.",
             ToString([&](std::string text) { daemon_flags.push_back(std::move(text)); })});
  AddSamplingFlags(request.mutable_sampling(), &flags);
  AddStopFlags(request.mutable_stop(), &flags);
  if (const std::optional<int> code = ParseLocalCommandLine(command, &flags, call)) return *code;
  const Io& io = call->io;
  const absl::StatusOr<std::string> model = TakeModel(&call->args, io);
  if (!model.ok()) return UsageError(command, io, model.status().message());
  const bool chat = call->args.empty() && io.in_is_terminal;
  if (!chat) {
    absl::StatusOr<std::string> text = ReadText(call->args, "", io);
    if (!text.ok()) return UsageError(command, io, text.status().message());
    request.set_text(*std::move(text));
  }
  const absl::StatusOr<std::string> program = FindSluiced(io.environment);
  if (!program.ok()) return UsageError(command, io, program.status().message());

  const absl::StatusOr<std::unique_ptr<PrivateDaemon>> daemon =
      PrivateDaemon::Start(*program, *model, daemon_flags, io.cancellation);
  if (!daemon.ok()) return CallFailed(io, daemon.status());
  call->connection.address = (*daemon)->address();
  call->connection.token.clear();
  if (!chat) return CallGenerate(*call, request, {});
  io.err << "(" << (*daemon)->serving().substr(0, (*daemon)->serving().find(" at "))
         << "; /help says what you can do; the daemon and the story end with this chat)\n";
  return ChatInTerminal(call->MakeClient(), request, *call);
}

}  // namespace

const Command kRunCommand = {
    "run",
    "starts a daemon for this command alone: a chat, or one prompt",
    "[FLAGS] [DIR] [PROMPT ...]",
    "Starts sluiced with the model of DIR on free ports of this machine, and stops it at the end.\n"
    "In a terminal it tells a story in turns, as `sluice chat` does. A prompt in the arguments or\n"
    "from a pipe is continued once. Without DIR the model is that of $SLUICE_MODEL, or else the\n"
    "bundled one.",
    "  sluice run\n"
    "  sluice run \"Once upon a time\"\n"
    "  sluice run models/gla-1.3B --daemon-flag=--device=cuda\n"
    "  echo \"It was a dark night\" | sluice run --max-tokens=60",
    Run};

}  // namespace sluice
