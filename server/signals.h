// Watches what can end the daemon or make it read its files again: signals, its terminal, and a
// fault of its device.
#ifndef SLUICE_SERVER_SIGNALS_H_
#define SLUICE_SERVER_SIGNALS_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>

struct signalfd_siginfo;

namespace sluice {

class Signals {
 public:
  enum class Event : uint8_t {
    kStop,            // SIGTERM or SIGINT
    kReload,          // a SIGHUP that somebody sent
    kTerminalClosed,  // a SIGHUP because the terminal that the daemon was started from is gone
    kNotified,        // Notify was called
  };

  // Takes these signals, SIGUSR1 and SIGUSR2 away from their default action, in this thread and
  // those it starts: construct it first. Where several objects wait, one of them gets a signal.
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // Blocks until one of the events; a notification stays. One thread at a time.
  Event Wait();
  // Any thread.
  void Notify();
  // True if a SIGTERM or SIGINT came that Wait has not taken yet. Any thread.
  static bool Pending();

 private:
  // Nothing for a signal that means nothing.
  std::optional<Event> EventOf(const signalfd_siginfo& info);
  std::optional<Event> HangupEventOf(const signalfd_siginfo& info);

  int signal_fd_ = -1;
  int event_fd_ = -1;
  const bool nohup_;         // SIGHUP was ignored at the start: a terminal's end is no reason
  const bool had_terminal_;  // at the start
  const pid_t parent_;       // at the start
  // A shell passed on a SIGHUP while the terminal was still there: it is looked at once more.
  bool look_again_ = false;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_SIGNALS_H_
