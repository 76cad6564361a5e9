#include "client/cli/chat.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/cli/generate_printer.h"
#include "client/cli/session_file.h"
#include "client/cli/text.h"
#include "client/proto_time.h"

namespace sluice {
namespace {

constexpr size_t kMaxUndo = 32;
// The session that a crashed chat leaves behind ends by itself.
constexpr absl::Duration kUndoTtl = absl::Hours(1);
constexpr absl::Duration kForgetTimeout = absl::Seconds(2);
constexpr char kUndoLabel[] = "sluice-chat-undo";

constexpr char kHelp[] =
    "A line continues the story, and the model goes on from there. An empty line lets it go on.\n"
    "  /undo        takes the last turn back\n"
    "  /fork [ID]   keeps a copy of the story as it is now; you go on here\n"
    "  /open ID     goes on in another story, which stays where it is\n"
    "  /save FILE   writes the story's state to a file\n"
    "  /load FILE   goes on from such a file, in a new story\n"
    "  /show        says where you are\n"
    "  /quit        ends; so does Ctrl-D. The story stays.\n"
    "  //text       a line that begins with /\n";

bool JoinsByItself(char c) { return absl::ascii_isspace(c) || absl::ascii_ispunct(c); }

}  // namespace

absl::string_view Chat::Help() { return kHelp; }

Chat::Chat(const Client& client, const CallOptions& call, v1::GenerateRequest turn, const Io& io)
    : client_(client), sessions_(client), call_(call), turn_(std::move(turn)), io_(io) {}

Chat::~Chat() {
  for (const std::string& id : undo_) Forget(id);
}

CallOptions Chat::Routed() const {
  CallOptions call = call_;
  call.affinity = session_.affinity();
  return call;
}

void Chat::Use(v1::Session session) {
  for (const std::string& id : undo_) Forget(id);
  undo_.clear();
  session_ = std::move(session);
  after_space_ = false;
}

// Also of an interrupted chat. A failure costs nothing: the session ends by itself.
void Chat::Forget(const std::string& undo_id) const {
  v1::DeleteSessionRequest request;
  request.set_id(undo_id);
  sessions_.Remove(request, {.timeout = kForgetTimeout, .affinity = session_.affinity()})
      .IgnoreError();
}

absl::Status Chat::Open(const std::string& id) {
  absl::StatusOr<v1::Session> session = absl::NotFoundError("");
  if (!id.empty()) session = sessions_.Get(id, call_);
  if (absl::IsNotFound(session.status())) {
    v1::CreateSessionRequest request;
    request.mutable_options()->set_id(id);
    session = sessions_.Create(request, call_);
  }
  if (!session.ok()) return session.status();
  Use(*std::move(session));
  return absl::OkStatus();
}

absl::Status Chat::Run() {
  std::string line;
  while (!quit_) {
    if (io_.in_is_terminal) io_.out << "> " << std::flush;
    if (!std::getline(io_.in, line)) break;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    absl::Status status;
    if (absl::StartsWith(line, "/") && !absl::StartsWith(line, "//")) {
      const size_t space = std::min(line.find(' '), line.size());
      status = Do(absl::string_view(line).substr(0, space),
                  std::string(absl::StripAsciiWhitespace(line.substr(space))));
    } else {
      status = Turn(std::string(absl::StripPrefix(line, "/")));
    }
    if (status.ok()) continue;
    const bool interrupted = call_.cancellation != nullptr && call_.cancellation->cancelled();
    if (!io_.in_is_terminal || interrupted) return status;
    io_.err << "(" << status.message() << ")\n";
  }
  if (io_.in_is_terminal && !quit_) io_.out << "\n";
  return absl::OkStatus();
}

absl::Status Chat::Do(absl::string_view command, const std::string& argument) {
  const auto needs = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(command, " needs ", what));
  };
  if (command == "/undo") return Undo();
  if (command == "/fork") return Fork(argument);
  if (command == "/open") return argument.empty() ? needs("a session's id") : Open(argument);
  if (command == "/save") return argument.empty() ? needs("a file") : Save(argument);
  if (command == "/load") return argument.empty() ? needs("a file") : Load(argument);
  if (command == "/quit") {
    quit_ = true;
  } else if (command == "/help") {
    io_.err << kHelp;
  } else if (command == "/show") {
    io_.err << "(story " << session_.id() << ", " << WithCommas(session_.position()) << " tokens, "
            << undo_.size() << " turns to undo)\n";
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown command ", EscapeControls(command), "; /help lists them"));
  }
  return absl::OkStatus();
}

std::string Chat::Joined(const std::string& line) const {
  const bool apart =
      session_.position() == 0 || after_space_ || line.empty() || JoinsByItself(line.front());
  return absl::StrCat(apart ? "" : " ", line);
}

absl::Status Chat::Turn(const std::string& line) {
  if (line.empty() && session_.position() == 0) {
    return absl::InvalidArgumentError("the story is empty: write how it begins");
  }
  if (ValidUtf8Prefix(line) < line.size()) {
    return absl::InvalidArgumentError("the line is not UTF-8");
  }
  v1::ForkSessionRequest before;
  before.set_id(session_.id());
  *before.mutable_options()->mutable_ttl() = ToProto(kUndoTtl);
  (*before.mutable_options()->mutable_labels())[kUndoLabel] = session_.id();
  const absl::StatusOr<v1::Session> undo = sessions_.Fork(before, Routed());
  if (!undo.ok()) return undo.status();
  absl::Cleanup forget = [&] { Forget(undo->id()); };

  v1::GenerateRequest request = turn_;
  request.set_session_id(session_.id());
  request.set_etag(session_.etag());
  if (!line.empty()) request.set_text(Joined(line));
  absl::Status status = Generate(request);
  if (!status.ok()) return status;
  std::move(forget).Cancel();
  undo_.push_back(undo->id());
  if (undo_.size() > kMaxUndo) {
    Forget(undo_.front());
    undo_.pop_front();
  }
  return absl::OkStatus();
}

absl::Status Chat::Generate(const v1::GenerateRequest& request) {
  GeneratePrinter printer(1, /*json=*/false, io_);
  bool committed = false;
  std::string text = request.text();
  absl::Status status = client_.Generate(request, Routed(), [&](const v1::GenerateResponse& event) {
    printer.Print(event);
    text += event.delta().text();
    if (event.finished().has_session()) {
      session_ = event.finished().session();
      committed = true;
    }
    return io_.out.good();
  });
  printer.End(/*stats=*/false);
  if (!status.ok()) return status;
  if (!committed) return absl::InternalError("the turn was not kept");
  after_space_ = !text.empty() && absl::ascii_isspace(static_cast<unsigned char>(text.back()));
  return absl::OkStatus();
}

// The story gets its earlier state under its own name, so it must leave that name first.
absl::Status Chat::Undo() {
  if (undo_.empty()) return absl::FailedPreconditionError("there is no turn to undo");
  const std::string earlier = undo_.back();
  v1::DeleteSessionRequest leave;
  leave.set_id(session_.id());
  leave.set_etag(session_.etag());
  absl::Status status = sessions_.Remove(leave, Routed());
  if (!status.ok()) return status;
  v1::ForkSessionRequest back;
  back.set_id(earlier);
  v1::SessionOptions* options = back.mutable_options();
  options->set_id(session_.id());
  *options->mutable_labels() = session_.labels();
  if (session_.has_expire_time()) {
    *options->mutable_ttl() =
        ToProto(FromProto(session_.expire_time()) - FromProto(session_.update_time()));
  }
  absl::StatusOr<v1::Session> session = sessions_.Fork(back, Routed());
  if (!session.ok()) {
    return absl::Status(
        session.status().code(),
        absl::StrCat("the earlier story is session ", earlier, " and could not get ",
                     "its name back: ", session.status().message()));
  }
  undo_.pop_back();
  Forget(earlier);
  session_ = *std::move(session);
  after_space_ = false;
  io_.err << "(back at " << WithCommas(session_.position()) << " tokens)\n";
  return absl::OkStatus();
}

absl::Status Chat::Fork(const std::string& name) {
  v1::ForkSessionRequest request;
  request.set_id(session_.id());
  request.mutable_options()->set_id(name);
  const absl::StatusOr<v1::Session> copy = sessions_.Fork(request, Routed());
  if (!copy.ok()) return copy.status();
  io_.err << "(kept as " << copy->id() << "; /open " << copy->id() << " goes on there)\n";
  return absl::OkStatus();
}

absl::Status Chat::Save(const std::string& file) {
  v1::ExportSessionRequest request;
  request.set_id(session_.id());
  const absl::StatusOr<int64_t> bytes = SaveSession(sessions_, request, Routed(), file);
  if (!bytes.ok()) return bytes.status();
  io_.err << "(" << WithCommas(*bytes) << " bytes in " << file << ")\n";
  return absl::OkStatus();
}

absl::Status Chat::Load(const std::string& file) {
  absl::StatusOr<v1::Session> session = LoadSession(sessions_, {}, call_, file);
  if (!session.ok()) return session.status();
  Use(*std::move(session));
  io_.err << "(story " << session_.id() << ", " << WithCommas(session_.position())
          << " tokens, from " << file << ")\n";
  return absl::OkStatus();
}

}  // namespace sluice
