// What can end the daemon: SIGTERM, SIGINT, or a fault of its device.
#ifndef SLUICE_SERVER_SIGNALS_H_
#define SLUICE_SERVER_SIGNALS_H_

#include <cstdint>

namespace sluice {

class Signals {
 public:
  enum class Event : uint8_t { kSignal, kNotified };

  // Takes both signals away from their default action, in this thread and those it starts:
  // construct it first.
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // Blocks until a signal came or Notify was called; a notification stays. One thread at a time.
  Event Wait();
  // Any thread.
  void Notify();

 private:
  int signal_fd_ = -1;
  int event_fd_ = -1;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_SIGNALS_H_
