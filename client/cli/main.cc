#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "client/cancellation.h"
#include "client/cli/io.h"
#include "client/cli/run.h"

namespace {

constexpr int kExitSignal = 128;

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

// The first signal cancels the call, so that the daemon stops computing it and what was printed
// stays whole. Where no call runs, or at the second signal, the process ends.
void AwaitSignals(sluice::Cancellation* cancellation, std::atomic<int>* stopped_by) {
  const sigset_t signals = StopSignals();
  for (;;) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) return;
    if (stopped_by->exchange(signal) != 0 || !cancellation->Cancel()) _exit(kExitSignal + signal);
  }
}

// The names in the environment.
std::vector<std::string> Variables() {
  std::vector<std::string> names;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    names.push_back(text.substr(0, text.find('=')));
  }
  return names;
}

}  // namespace

int main(int argc, char** argv) {
  const sigset_t signals = StopSignals();
  // Before any thread starts: all of them inherit it.
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // These two outlive main, as the thread that waits for signals does.
  static sluice::Cancellation cancellation;
  static std::atomic<int> stopped_by = 0;
  std::thread(AwaitSignals, &cancellation, &stopped_by).detach();

  std::ios::sync_with_stdio(false);
  const sluice::Io io{std::cin,
                      std::cout,
                      std::cerr,
                      isatty(STDIN_FILENO) != 0,
                      isatty(STDOUT_FILENO) != 0,
                      isatty(STDERR_FILENO) != 0,
                      [](const char* name) -> const char* { return std::getenv(name); },
                      Variables(),
                      &cancellation};
  int exit_code = sluice::RunSluice(std::vector<std::string>(argv + 1, argv + argc), io);
  std::cout.flush();
  if (!std::cout) {
    std::cerr << "sluice: cannot write to standard output\n";
    exit_code = sluice::kExitFailed;
  }
  return stopped_by != 0 ? kExitSignal + stopped_by : exit_code;
}
