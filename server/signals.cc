#include "server/signals.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

#include "kernels/check.h"

namespace sluice {
namespace {

// A shell may hear of its terminal's end, and pass it on, a moment before the kernel does.
constexpr int kLookAgainMs = 1000;

bool IsIgnored(int number) {
  struct sigaction action {};
  return sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

// 0, or why the process's terminal cannot be opened.
int TerminalError() {
  const int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return errno;
  close(fd);
  return 0;
}

bool TerminalIsGone() {
  const int error = TerminalError();
  return error == ENXIO || error == EIO;
}

}  // namespace

Signals::Signals()
    : nohup_(IsIgnored(SIGHUP)), had_terminal_(TerminalError() == 0), parent_(getppid()) {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) sigaddset(&set, number);
  SLUICE_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  signal(SIGPIPE, SIG_IGN);
  signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC);
  event_fd_ = eventfd(0, EFD_CLOEXEC);
  SLUICE_CHECK(signal_fd_ >= 0 && event_fd_ >= 0);
}

Signals::~Signals() {
  close(signal_fd_);
  close(event_fd_);
}

Signals::Event Signals::Wait() {
  while (true) {
    pollfd fds[] = {{signal_fd_, POLLIN, 0}, {event_fd_, POLLIN, 0}};
    const int ready = poll(fds, 2, look_again_ ? kLookAgainMs : -1);
    if (ready < 0) continue;  // interrupted
    if (ready == 0) {
      look_again_ = false;
      if (TerminalIsGone()) return Event::kTerminalClosed;
      continue;
    }
    if (fds[1].revents != 0) return Event::kNotified;
    signalfd_siginfo info;
    if (fds[0].revents == 0 || read(signal_fd_, &info, sizeof(info)) != sizeof(info)) continue;
    if (const std::optional<Event> event = EventOf(info)) return *event;
  }
}

std::optional<Signals::Event> Signals::EventOf(const signalfd_siginfo& info) {
  switch (info.ssi_signo) {
    case SIGTERM:
    case SIGINT:
      return Event::kStop;
    case SIGHUP:
      return HangupEventOf(info);
    default:
      return std::nullopt;
  }
}

// The kernel tells the leader of the terminal's session and the jobs in the foreground; the others
// hear it from their shell, whose signal looks like anybody's.
std::optional<Signals::Event> Signals::HangupEventOf(const signalfd_siginfo& info) {
  if (nohup_) return Event::kReload;
  if (info.ssi_code == SI_KERNEL) return Event::kTerminalClosed;
  const pid_t sender = static_cast<pid_t>(info.ssi_pid);
  if (!had_terminal_ || (sender != parent_ && sender != getsid(0))) return Event::kReload;
  if (TerminalIsGone()) return Event::kTerminalClosed;
  look_again_ = true;
  return Event::kReload;
}

bool Signals::Pending() {
  sigset_t pending;
  if (sigpending(&pending) != 0) return false;
  return sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1;
}

void Signals::Notify() {
  const uint64_t one = 1;
  SLUICE_CHECK(write(event_fd_, &one, sizeof(one)) == sizeof(one));
}

}  // namespace sluice
