// sluice ps.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/command.h"
#include "client/cli/text.h"
#include "nlohmann/json.hpp"
#include "sluice/v1/model.pb.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kAnswerWithin = absl::Milliseconds(500);
constexpr absl::string_view kListens = "0A";  // TCP_LISTEN, as /proc/net/tcp writes it

struct Daemon {
  int64_t pid = 0;
  int64_t memory = 0;                  // resident bytes
  std::vector<std::string> addresses;  // where it listens
  std::string grpc;                    // the address that answers gRPC; empty if none does
  v1::Model model;                     // empty if the daemon does not say
};

// "0100007F:C383" -> "127.0.0.1:50051". Any IPv6 address counts as this machine's own.
std::string AddressOf(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, ':');
  uint32_t host = 0;
  uint32_t port = 0;
  if (!absl::SimpleHexAtoi(parts.second, &port)) return "";
  if (parts.first.size() != 8 || !absl::SimpleHexAtoi(parts.first, &host)) {
    return absl::StrCat("[::1]:", port);
  }
  if (host == 0) return absl::StrCat("127.0.0.1:", port);
  return absl::StrFormat("%d.%d.%d.%d:%d", host & 255, host >> 8 & 255, host >> 16 & 255,
                         host >> 24, port);
}

// inode -> address, of every TCP socket that listens.
std::map<std::string, std::string> ListeningSockets() {
  std::map<std::string, std::string> found;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream in(table);
    for (std::string line; std::getline(in, line);) {
      const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ', absl::SkipEmpty());
      if (fields.size() > 9 && fields[3] == kListens) {
        found[std::string(fields[9])] = AddressOf(fields[1]);
      }
    }
  }
  return found;
}

std::string FirstLine(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

int64_t ResidentBytes(const fs::path& process) {
  const std::vector<std::string> fields = absl::StrSplit(FirstLine(process / "statm"), ' ');
  int64_t pages = 0;
  return fields.size() > 1 && absl::SimpleAtoi(fields[1], &pages) ? pages * sysconf(_SC_PAGESIZE)
                                                                  : 0;
}

std::vector<Daemon> FindDaemons() {
  const std::map<std::string, std::string> sockets = ListeningSockets();
  std::vector<Daemon> daemons;
  std::error_code error;
  for (const fs::directory_entry& process : fs::directory_iterator("/proc", error)) {
    Daemon daemon;
    if (!absl::SimpleAtoi(process.path().filename().string(), &daemon.pid)) continue;
    if (FirstLine(process.path() / "comm") != "sluiced") continue;
    daemon.memory = ResidentBytes(process.path());
    // The descriptors of others' processes cannot be read.
    fs::directory_iterator descriptors(process.path() / "fd", error);
    for (; !error && descriptors != fs::directory_iterator(); descriptors.increment(error)) {
      std::error_code gone;
      const std::string target = fs::read_symlink(descriptors->path(), gone).string();
      absl::string_view inode = target;
      if (!absl::ConsumePrefix(&inode, "socket:[") || !absl::ConsumeSuffix(&inode, "]")) continue;
      const auto socket = sockets.find(std::string(inode));
      if (socket != sockets.end()) daemon.addresses.push_back(socket->second);
    }
    std::sort(daemon.addresses.begin(), daemon.addresses.end());
    daemons.push_back(std::move(daemon));
  }
  std::sort(daemons.begin(), daemons.end(),
            [](const Daemon& a, const Daemon& b) { return a.pid < b.pid; });
  return daemons;
}

// Asks each address what it serves, until one answers.
void Ask(const Invocation& call, Daemon* daemon) {
  CallOptions options = call.Call();
  options.timeout = std::min(options.timeout, kAnswerWithin);
  for (const std::string& address : daemon->addresses) {
    const Client client({address, call.credentials, call.connection.token});
    const absl::StatusOr<v1::Model> model = client.GetModel({}, options);
    if (!model.ok() && !absl::IsUnauthenticated(model.status())) continue;
    daemon->grpc = address;
    if (model.ok()) daemon->model = *model;
    return;
  }
}

std::string OrDash(const std::string& text) { return text.empty() ? "-" : EscapeControls(text); }

int Run(const Command& command, Invocation* call) {
  bool json = false;
  FlagSet flags;
  flags.Add({"json", "", "Prints one JSON object a line.",
             ToBool([&json](bool value) { json = value; })});
  if (const std::optional<int> code = ParseCommandLine(command, &flags, call)) return *code;
  if (!call->args.empty()) return UsageError(command, call->io, "takes no arguments");
  std::ostream& out = call->io.out;
  if (!json) {
    out << absl::StrFormat("%8s  %-22s %-24s %-8s %10s\n", "PID", "ADDRESS", "MODEL", "DEVICE",
                           "MEMORY");
  }
  for (Daemon& daemon : FindDaemons()) {
    Ask(*call, &daemon);
    if (json) {
      out << nlohmann::json({{"pid", daemon.pid},
                             {"address", daemon.grpc},
                             {"listens", daemon.addresses},
                             {"model", daemon.model.name()},
                             {"device", daemon.model.device()},
                             {"resident_bytes", daemon.memory}})
                 .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
          << "\n";
    } else {
      out << absl::StrFormat("%8d  %-22s %-24s %-8s %6d MiB\n", daemon.pid, OrDash(daemon.grpc),
                             OrDash(daemon.model.name()), OrDash(daemon.model.device()),
                             daemon.memory >> 20);
    }
  }
  return kExitOk;
}

}  // namespace

const Command kPsCommand = {
    "ps",
    "lists the daemons on this machine",
    "[FLAGS]",
    "Lists every sluiced of this machine with the address at which it answers gRPC, its model and\n"
    "its resident memory. A dash stands for what cannot be known: the processes of other users\n"
    "show no addresses, and a daemon with TLS answers only if the flags of TLS fit.",
    "  sluice ps\n"
    "  sluice ps --json | jq .address",
    Run};

}  // namespace sluice
