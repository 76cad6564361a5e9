#include "server/thread_check.h"

#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/core/mutex.h"
#include "server/exit_codes.h"

namespace sluice {
namespace {

constexpr const char* kWhereToLook =
    "; see ulimit -u, pids.max of the cgroup, and the container's bound on pids";

// All threads wait here until the last one has started.
class Gate {
 public:
  void Wait() {
    MutexLock lock(&mutex_);
    while (!open_) bell_.WaitFor(&mutex_, absl::InfiniteDuration());
    bell_.NotifyOne();  // the next one
  }
  void Open() {
    MutexLock lock(&mutex_);
    open_ = true;
    bell_.NotifyOne();
  }

 private:
  Mutex mutex_;
  CondVar bell_;
  bool open_ SLUICE_GUARDED_BY(mutex_) = false;
};

void ExitForWantOfThreads(int) {
  constexpr char kMessage[] =
      "sluiced: a thread of a library cannot be started; see ulimit -u, pids.max of the cgroup, "
      "and "
      "the container's bound on pids\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  _exit(kExitMemory);
}

void* WaitAtGate(void* gate) {
  static_cast<Gate*>(gate)->Wait();
  return nullptr;
}

constexpr std::chrono::milliseconds kLookAgain(5);

bool HasThread(absl::string_view name) {
  std::error_code error;
  std::filesystem::directory_iterator task("/proc/self/task", error);
  for (; !error && task != std::filesystem::directory_iterator(); task.increment(error)) {
    std::ifstream file(task->path() / "comm");
    std::string found;
    if (std::getline(file, found) && found == name) return true;
  }
  return false;
}

}  // namespace

absl::Status CheckThreads(int count) {
  Gate gate;
  std::vector<pthread_t> threads;
  int error = 0;
  while (static_cast<int>(threads.size()) < count && error == 0) {
    pthread_t thread;
    error = pthread_create(&thread, nullptr, &WaitAtGate, &gate);
    if (error == 0) threads.push_back(thread);
  }
  gate.Open();
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  if (error == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("this process may start ", threads.size(),
                                                   " threads, but may need ", count, ": ",
                                                   std::strerror(error), kWhereToLook));
}

bool WaitForThread(absl::string_view name, std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (!HasThread(name)) {
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::sleep_for(kLookAgain);
  }
  return true;
}

absl::Status NoThread(absl::string_view why) {
  return absl::ResourceExhaustedError(
      absl::StrCat("a thread cannot be started: ", why, kWhereToLook));
}

AbortMeansNoThread::AbortMeansNoThread() { std::signal(SIGABRT, &ExitForWantOfThreads); }
AbortMeansNoThread::~AbortMeansNoThread() { std::signal(SIGABRT, SIG_DFL); }

}  // namespace sluice
