// sluiced: reads the flags, serves, drains when told to.
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/check.h"
#include "server/exit_codes.h"
#include "server/grpc_settings.h"
#include "server/help.h"
#include "server/listener.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/options.h"
#include "server/server.h"
#include "server/signals.h"
#include "server/thread_check.h"
#include "server/worker.h"

namespace sluice {
namespace {

// Time for health watchers to hear of the fault before a process that hangs ends.
constexpr std::chrono::milliseconds kTellHealth(200);

int Fail(const absl::Status& status) {
  if (absl::IsCancelled(status)) return kExitDrained;  // told to end before it served
  const std::string message(status.message());
  std::fprintf(stderr, "sluiced: %s\n", message.c_str());
  return absl::IsResourceExhausted(status) ? kExitMemory : kExitBadInput;
}

[[noreturn]] void OutOfMemory() {
  constexpr char kMessage[] = "sluiced: not enough memory\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  _exit(kExitMemory);
}

// Waits for what ends the daemon, and reads files again until then.
Signals::Event WaitForEnd(Signals& signals, Server& server) {
  while (true) {
    const Signals::Event event = signals.Wait();
    if (event != Signals::Event::kReload) return event;
    Log(LogLevel::kInfo, "reload", {{"reason", "SIGHUP"}});
    server.Reload();
  }
}

const char* NameOf(Signals::Event event) {
  switch (event) {
    case Signals::Event::kNotified:
      return "device fault";
    case Signals::Event::kTerminalClosed:
      return "terminal closed";
    default:
      return "signal";
  }
}

// Serves until a signal or a fault of the device; each further SIGTERM or SIGINT ends what is
// waited for then.
int Serve(const ServerOptions& options, Signals& stop) {
  // Everything that the end needs exists before it: by then there may be no thread and no
  // descriptor left.
  Signals ended;
  auto further = std::make_unique<Worker>(1);
  DeviceEvents events;
  events.on_fault = [&stop](const absl::Status& status) {
    Log(LogLevel::kError, "device_fault", {{"message", status.message()}});
    stop.Notify();
  };
  events.on_stuck = [] {
    std::this_thread::sleep_for(kTellHealth);
    StopLog();
    _exit(kExitDeviceFault);
  };
  absl::StatusOr<std::unique_ptr<Server>> started = Server::Start(options, events);
  if (!started.ok()) return Fail(started.status());
  Server& server = **started;
  LogGrpcErrorsAs(LogLevel::kWarn);
  const std::string http = server.http_address();
  std::printf("serving %s on %s at %s, admin at %s%s%s\n", server.model().name().c_str(),
              server.model().device().c_str(), server.address().c_str(),
              server.admin_address().c_str(), http.empty() ? "" : ", http at ", http.c_str());
  std::fflush(stdout);

  const Signals::Event end = WaitForEnd(stop, server);
  const bool fault = end == Signals::Event::kNotified;
  Log(LogLevel::kInfo, "draining", {{"reason", NameOf(end)}});
  if (fault) server.Hurry();
  const bool posted = further->Post([&] {
    for (Signals::Event event; (event = ended.Wait()) != Signals::Event::kNotified;) {
      if (event == Signals::Event::kStop) server.Hurry();
    }
  });
  SLUICE_CHECK(posted);
  const DeviceThread::Rest rest = server.Shutdown();
  ended.Notify();
  further.reset();
  Log(LogLevel::kInfo, "stopped");
  const int code = fault                         ? kExitDeviceFault
                   : rest.unwritten_sessions > 0 ? kExitNotWritten
                                                 : kExitDrained;
  if (rest.store_hangs || server.grpc_hangs()) {
    StopLog();
    _exit(code);
  }
  return code;
}

int Main(int argc, char** argv) {
  std::set_new_handler(&OutOfMemory);
  const std::vector<std::string> args(argv + 1, argv + argc);
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const absl::StatusOr<CommandLine> command = ParseCommandLine(args, environment);
  if (!command.ok()) return Fail(command.status());
  switch (command->action) {
    case CommandLineAction::kHelp:
      std::fputs(HelpText().c_str(), stdout);
      return 0;
    case CommandLineAction::kHelpMarkdown:
      std::fputs(HelpMarkdown().c_str(), stdout);
      return 0;
    case CommandLineAction::kHelpMetrics:
      std::fputs(MetricsMarkdown().c_str(), stdout);
      return 0;
    case CommandLineAction::kHelpMan:
      std::fputs(ManPage(ServerManual()).c_str(), stdout);
      return 0;
    case CommandLineAction::kHelpBash:
      std::fputs(BashCompletion(ServerManual()).c_str(), stdout);
      return 0;
    case CommandLineAction::kHelpZsh:
      std::fputs(ZshCompletion(ServerManual()).c_str(), stdout);
      return 0;
    case CommandLineAction::kVersionVerbose:
      std::fputs(VerboseVersion().c_str(), stdout);
      return 0;
    case CommandLineAction::kVersion:
      std::printf("sluiced %s\n", Version().c_str());
      return 0;
    case CommandLineAction::kServe:
      break;
  }
  for (const std::string& warning : command->warnings) {
    std::fprintf(stderr, "sluiced: warning: %s\n", warning.c_str());
  }
  Signals stop;  // before any thread
  RaiseFileLimit();
  const absl::Status threads = CheckThreads(Server::ThreadsOf(command->options));
  if (!threads.ok()) return Fail(threads);
  int code;
  try {
    StartLog(ParseLogLevel(command->options.log_level), command->options.log_format == "json");
    LogGrpcErrorsAs(LogLevel::kDebug);  // what ends the start is told in one line of ours
    CountProtobufErrors();
    code = Serve(command->options, stop);
  } catch (const std::system_error& error) {
    // std::thread threw it: another process took the last thread since the check.
    code = Fail(NoThread(error.code().message()));
  }
  StopLog();
  // Libraries can hang at exit when the device hangs, or when they got no thread.
  if (code == kExitDeviceFault || code == kExitMemory) _exit(code);
  return code;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  // Limits the heaps to the number of cores. glibc would make eight times as many, and each keeps
  // memory.
  mallopt(M_ARENA_MAX, static_cast<int>(std::max(2u, std::thread::hardware_concurrency())));
  // Keeps glibc's initial values. It would otherwise raise both to the size that was freed after
  // the checkpoint was read, and then keep that much of every burst.
  mallopt(M_MMAP_THRESHOLD, 128 << 10);
  mallopt(M_TRIM_THRESHOLD, 128 << 10);
  return sluice::Main(argc, argv);
}
