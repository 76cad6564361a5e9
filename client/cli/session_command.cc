// sluice session: one command for each call of SessionService.
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "client/cli/command.h"
#include "client/cli/session_file.h"
#include "client/cli/session_text.h"
#include "client/cli/text.h"
#include "client/proto_time.h"
#include "client/session_client.h"
#include "server/flags/near_name.h"

namespace sluice {
namespace {

void AddJsonFlag(bool* json, FlagSet* flags) {
  flags->Section("Output");
  flags->Add({"json", "", "Prints JSON with the API's field names, one object a line.",
              ToBool([json](bool value) { *json = value; })});
}

void AddEtagFlag(std::string* etag, FlagSet* flags) {
  flags->Add({"etag", "ETAG", "Refuses unless the session's etag is this one.",
              ToString([etag](std::string text) { *etag = std::move(text); })});
}

int PrintSession(const Io& io, const absl::StatusOr<v1::Session>& session, bool json) {
  if (!session.ok()) return CallFailed(io, session.status());
  if (json) {
    io.out << ToJson(*session) << "\n";
  } else {
    io.out << DescribeSession(*session);
  }
  return kExitOk;
}

int RunCreate(const Command& command, Invocation* call) {
  v1::CreateSessionRequest request;
  bool json = false;
  FlagSet flags;
  AddSessionOptionFlags(request.mutable_options(), &flags);
  AddJsonFlag(&json, &flags);
  if (const std::optional<int> code = ParseCommandLine(command, &flags, call)) return *code;
  if (call->args.size() > 1) return UsageError(command, call->io, "takes one id, or none");
  if (!call->args.empty()) request.mutable_options()->set_id(call->args[0]);
  const SessionClient sessions(call->MakeClient());
  return PrintSession(call->io, sessions.Create(request, call->Call()), json);
}

int RunList(const Command& command, Invocation* call) {
  v1::ListSessionsRequest request;
  request.set_page_size(1000);
  bool json = false;
  FlagSet flags;
  AddLabelFlag("Lists only sessions with this label. The flag may be repeated.",
               request.mutable_labels(), &flags);
  AddJsonFlag(&json, &flags);
  if (const std::optional<int> code = ParseCommandLine(command, &flags, call)) return *code;
  if (!call->args.empty()) return UsageError(command, call->io, "takes no arguments");
  const Io& io = call->io;
  bool has_heading = json;
  const absl::Status status = SessionClient(call->MakeClient())
                                  .List(request, call->Call(), [&](const v1::Session& session) {
                                    if (!std::exchange(has_heading, true))
                                      io.out << SessionHeading();
                                    io.out << (json ? ToJson(session) + "\n" : SessionRow(session));
                                    return io.out.good();
                                  });
  return status.ok() ? kExitOk : CallFailed(io, status);
}

int RunShow(const Command& command, Invocation* call) {
  bool json = false;
  FlagSet flags;
  AddJsonFlag(&json, &flags);
  if (const std::optional<int> code = ParseCommandLine(command, &flags, call)) return *code;
  if (call->args.size() != 1) return UsageError(command, call->io, "takes the session's id");
  const SessionClient sessions(call->MakeClient());
  return PrintSession(call->io, sessions.Get(call->args[0], call->Call()), json);
}

int RunUpdate(const Command& command, Invocation* call) {
  v1::UpdateSessionRequest request;
  bool json = false;
  bool clear_labels = false;
  FlagSet flags;
  flags.Section("Change");
  flags.Add({"ttl", "DURATION", "Ends the session when it is unused for this long, from now on.",
             ToDuration([&](absl::Duration ttl) { *request.mutable_ttl() = ToProto(ttl); })});
  AddLabelFlag("Replaces the session's labels by those given here. The flag may be repeated.",
               request.mutable_session()->mutable_labels(), &flags);
  flags.Add({"clear-labels", "", "Removes all labels of the session.",
             ToBool([&](bool value) { clear_labels = value; })});
  AddEtagFlag(request.mutable_session()->mutable_etag(), &flags);
  AddJsonFlag(&json, &flags);
  if (const std::optional<int> code = ParseCommandLine(command, &flags, call)) return *code;
  if (call->args.size() != 1) return UsageError(command, call->io, "takes the session's id");
  const bool labels = !request.session().labels().empty();
  if (labels && clear_labels) {
    return UsageError(command, call->io, "--label and --clear-labels exclude each other");
  }
  if (!labels && !clear_labels && !request.has_ttl()) {
    return UsageError(command, call->io, "give --ttl, --label or --clear-labels");
  }
  if (labels || clear_labels) request.mutable_update_mask()->add_paths("labels");
  if (request.has_ttl()) request.mutable_update_mask()->add_paths("ttl");
  request.mutable_session()->set_id(call->args[0]);
  const SessionClient sessions(call->MakeClient());
  return PrintSession(call->io, sessions.Update(request, call->Call()), json);
}

int RunFork(const Command& command, Invocation* call) {
  v1::ForkSessionRequest request;
  bool json = false;
  FlagSet flags;
  AddEtagFlag(request.mutable_etag(), &flags);
  AddSessionOptionFlags(request.mutable_options(), &flags);
  AddJsonFlag(&json, &flags);
  if (const std::optional<int> code = ParseCommandLine(command, &flags, call)) return *code;
  if (call->args.empty() || call->args.size() > 2) {
    return UsageError(command, call->io, "takes the session's id, and the new one's if you like");
  }
  request.set_id(call->args[0]);
  if (call->args.size() == 2) request.mutable_options()->set_id(call->args[1]);
  const SessionClient sessions(call->MakeClient());
  return PrintSession(call->io, sessions.Fork(request, call->Call()), json);
}

int RunExport(const Command& command, Invocation* call) {
  v1::ExportSessionRequest request;
  FlagSet flags;
  AddEtagFlag(request.mutable_etag(), &flags);
  if (const std::optional<int> code = ParseCommandLine(command, &flags, call)) return *code;
  const Io& io = call->io;
  if (call->args.size() != 2) {
    return UsageError(command, io, "takes the session's id and a file (- is standard output)");
  }
  request.set_id(call->args[0]);
  const SessionClient sessions(call->MakeClient());
  if (call->args[1] == "-") {
    if (io.out_is_terminal) return UsageError(command, io, "will not write bytes to a terminal");
    const absl::Status status = sessions.Export(request, call->Call(), [&](absl::string_view data) {
      io.out.write(data.data(), static_cast<std::streamsize>(data.size()));
      return io.out ? absl::OkStatus() : absl::CancelledError("cannot write");
    });
    return status.ok() ? kExitOk : CallFailed(io, status);
  }
  const absl::StatusOr<int64_t> bytes = SaveSession(sessions, request, call->Call(), call->args[1]);
  if (!bytes.ok()) return CallFailed(io, bytes.status());
  io.out << call->args[0] << ": " << WithCommas(*bytes) << " bytes in " << call->args[1] << "\n";
  return kExitOk;
}

int RunImport(const Command& command, Invocation* call) {
  v1::SessionOptions options;
  bool json = false;
  FlagSet flags;
  AddSessionOptionFlags(&options, &flags);
  AddJsonFlag(&json, &flags);
  if (const std::optional<int> code = ParseCommandLine(command, &flags, call)) return *code;
  if (call->args.empty() || call->args.size() > 2) {
    return UsageError(command, call->io,
                      "takes a file (- is standard input), and the new session's id if you like");
  }
  if (call->args.size() == 2) options.set_id(call->args[1]);
  const SessionClient sessions(call->MakeClient());
  return PrintSession(call->io,
                      call->args[0] == "-"
                          ? LoadSession(sessions, options, call->Call(), call->io.in)
                          : LoadSession(sessions, options, call->Call(), call->args[0]),
                      json);
}

int RunDelete(const Command& command, Invocation* call) {
  v1::DeleteSessionRequest request;
  FlagSet flags;
  AddEtagFlag(request.mutable_etag(), &flags);
  if (const std::optional<int> code = ParseCommandLine(command, &flags, call)) return *code;
  if (call->args.empty()) return UsageError(command, call->io, "takes the ids of sessions");
  if (call->args.size() > 1 && !request.etag().empty()) {
    return UsageError(command, call->io, "--etag is for one session");
  }
  const SessionClient sessions(call->MakeClient());
  for (const std::string& id : call->args) {
    request.set_id(id);
    const absl::Status status = sessions.Remove(request, call->Call());
    if (!status.ok()) return CallFailed(call->io, status);
  }
  return kExitOk;
}

constexpr std::array<Command, 8> kSessionCommands = {{
    {"session create", "makes an empty session", "[FLAGS] [ID]",
     "Makes an empty session, for `generate --session=ID` and `chat ID` to continue.",
     "  sluice session create story --ttl=24h --label user=42", RunCreate},
    {"session list", "lists sessions", "[FLAGS]", "Lists your sessions, ordered by id.",
     "  sluice session list --label user=42", RunList},
    {"session show", "prints one session", "[FLAGS] ID", "Prints one session.",
     "  sluice session show story", RunShow},
    {"session update", "changes labels or time to live", "[FLAGS] ID",
     "Changes a session's labels or its time to live.",
     "  sluice session update story --ttl=1h\n"
     "  sluice session update story --label user=42 --label mood=dark",
     RunUpdate},
    {"session fork", "makes a session that continues from another", "[FLAGS] ID [NEW_ID]",
     "Makes a session that continues from where another one is, also while that is busy. It costs\n"
     "no copy of the state.",
     "  sluice session fork story other-ending", RunFork},
    {"session export", "writes a session's state to a file", "[FLAGS] ID FILE",
     "Writes a session's state to a file, or to standard output for -.",
     "  sluice session export story story.state\n"
     "  sluice session export story - | sluice --address=gpu-3:50051 session import -",
     RunExport},
    {"session import", "makes a session from such a file", "[FLAGS] FILE [ID]",
     "Makes a session of an exported file, on any daemon with the same model and state key.",
     "  sluice session import story.state story", RunImport},
    {"session delete", "ends sessions", "[FLAGS] ID ...",
     "Ends sessions, and calls that write to them.", "  sluice session delete story other-ending",
     RunDelete},
}};

std::string Details() {
  std::string out =
      "Sessions keep a model's state between calls. `sluice session COMMAND --help`\n"
      "says more.\n\nCommands:\n";
  for (const Command& command : kSessionCommands) {
    std::string name(command.name.substr(command.name.find(' ') + 1));
    name.resize(10, ' ');
    absl::StrAppend(&out, "  ", name, command.summary, "\n");
  }
  return out;
}

int Run(const Command& command, Invocation* call) {
  if (!call->args.empty() && call->args[0].substr(0, 1) != "-") {
    for (const Command& sub : kSessionCommands) {
      if (absl::StrCat("session ", call->args[0]) != sub.name) continue;
      call->args.erase(call->args.begin());
      return sub.run(sub, call);
    }
    std::vector<std::string> names;
    for (const Command& sub : kSessionCommands) {
      names.emplace_back(absl::StripPrefix(sub.name, "session "));
    }
    return UsageError(command, call->io,
                      absl::StrCat("unknown command '", call->args[0], "'",
                                   DidYouMean(call->args[0], names, "session ")));
  }
  const std::string details = Details();
  Command described = command;
  described.details = absl::StripTrailingAsciiWhitespace(details);
  FlagSet flags;
  if (const std::optional<int> code = ParseCommandLine(described, &flags, call)) return *code;
  return UsageError(command, call->io, "which command?");
}

}  // namespace

absl::Span<const Command> SessionCommands() { return kSessionCommands; }

const Command kSessionCommand = {"session",
                                 "makes, lists, forks, moves and ends sessions",
                                 "create|list|show|update|fork|export|import|delete ...",
                                 "",
                                 "  sluice session create story\n"
                                 "  sluice generate --session=story \"Once upon a time\"\n"
                                 "  sluice session fork story other-ending\n"
                                 "  sluice session list",
                                 Run};

}  // namespace sluice
