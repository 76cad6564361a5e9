#include "client/cli/private_daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr int kCannotRun = 127;
constexpr size_t kMaxServingLine = 4096;

fs::path ProgramFolder() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path();
}

bool CanRun(const fs::path& file) {
  std::error_code error;
  return fs::is_regular_file(file, error) && access(file.c_str(), X_OK) == 0;
}

// Runs in the child, where only calls that are safe after a fork may be made.
[[noreturn]] void RunChild(const char* const* arguments, int out, pid_t parent) {
  // The daemon ends with its client, however that ends.
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(kCannotRun);
  // Ctrl-C in the terminal is for the client, which then has the daemon drain.
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int nothing = open("/dev/null", O_RDONLY);
  if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0) {
    _exit(kCannotRun);
  }
  execv(arguments[0], const_cast<char* const*>(arguments));
  _exit(kCannotRun);
}

// The first line of what comes from `fd`; empty if the other end closes before its end.
std::string ReadLine(int fd) {
  std::string line;
  char c = 0;
  while (line.size() < kMaxServingLine) {
    const ssize_t got = read(fd, &c, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return "";
    if (c == '\n') return line;
    line += c;
  }
  return "";
}

// "serving MODEL on DEVICE at HOST:PORT, admin at HOST:PORT": HOST:PORT of gRPC, or empty.
std::string AddressOf(absl::string_view line) {
  const size_t end = line.find(", admin at ");
  if (end == absl::string_view::npos) return "";
  const size_t begin = line.rfind(" at ", end - 1);
  return begin == absl::string_view::npos ? ""
                                          : std::string(line.substr(begin + 4, end - begin - 4));
}

}  // namespace

absl::StatusOr<std::unique_ptr<PrivateDaemon>> PrivateDaemon::Start(
    const std::string& program, const std::string& model, const std::vector<std::string>& flags,
    Cancellation* cancellation) {
  // Variables of the environment are for daemons that others call.
  std::vector<std::string> words = {program,
                                    absl::StrCat("--model=", model),
                                    "--listen=127.0.0.1:0",
                                    "--admin_listen=",
                                    "--http_listen=",
                                    "--auth_tokens_file=",
                                    "--tls_cert=",
                                    "--tls_key=",
                                    "--tls_client_ca=",
                                    "--log_level=warn",
                                    "--log_format=text"};
  words.insert(words.end(), flags.begin(), flags.end());
  std::vector<const char*> arguments;
  for (const std::string& word : words) arguments.push_back(word.c_str());
  arguments.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return absl::InternalError(absl::StrCat("pipe: ", std::strerror(errno)));
  }
  const absl::Cleanup close_end = [&] { close(ends[0]); };
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) RunChild(arguments.data(), ends[1], parent);
  const int error = errno;
  close(ends[1]);
  if (pid < 0) return absl::InternalError(absl::StrCat("fork: ", std::strerror(error)));

  std::unique_ptr<PrivateDaemon> daemon(new PrivateDaemon(pid));
  std::string line;
  {
    const Cancellation::Scope scope(cancellation, [pid] { kill(pid, SIGTERM); });
    line = ReadLine(ends[0]);
  }
  daemon->address_ = AddressOf(line);
  daemon->serving_ = std::string(absl::StripPrefix(line, "serving "));
  if (!daemon->address_.empty()) return daemon;
  if (!line.empty()) kill(pid, SIGTERM);
  const int code = daemon->Wait();
  if (cancellation != nullptr && cancellation->cancelled()) {
    return absl::CancelledError("interrupted");
  }
  return absl::FailedPreconditionError(
      code == kCannotRun
          ? absl::StrCat("cannot run ", program)
          : absl::StrCat(program, " ended with exit code ", code, " before it served"));
}

PrivateDaemon::~PrivateDaemon() {
  if (pid_ < 0) return;
  kill(pid_, SIGTERM);
  Wait();
}

int PrivateDaemon::Wait() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

absl::StatusOr<std::string> FindSluiced(
    const std::function<const char*(const char* name)>& environment) {
  const fs::path folder = ProgramFolder();
  if (CanRun(folder / "sluiced")) return (folder / "sluiced").string();
  const char* path = environment ? environment("PATH") : nullptr;
  for (absl::string_view part :
       absl::StrSplit(path != nullptr ? path : "", ':', absl::SkipEmpty())) {
    const fs::path file = fs::path(std::string(part)) / "sluiced";
    if (CanRun(file)) return file.string();
  }
  return absl::NotFoundError(
      absl::StrCat("sluiced is neither in ", folder.string(), " nor in a directory of PATH"));
}

absl::StatusOr<std::string> FindBundledModel() {
  const fs::path folder = ProgramFolder();
  for (const fs::path& place : {folder / "../share/sluice/models/classics-12m",
                                folder / "../../deploy/models/classics-12m"}) {
    std::error_code error;
    if (fs::is_regular_file(place / "config.json", error)) {
      return fs::canonical(place, error).string();
    }
  }
  return absl::NotFoundError("the bundled model is not installed with this program");
}

}  // namespace sluice
