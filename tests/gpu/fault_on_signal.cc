// Linked with the daemon's main into sluiced_with_fault: SIGUSR1 makes its device fail.
#include <pthread.h>
#include <signal.h>

#include <thread>

#include "tests/gpu/fault.h"

namespace sluice {
namespace {

// Before main, so that every thread inherits the blocked signal.
const bool kWaiting = [] {
  static sigset_t fault, all;
  sigemptyset(&fault);
  sigaddset(&fault, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &fault, nullptr);
  std::thread([] {
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    int number = 0;
    while (sigwait(&fault, &number) == 0) CauseFault(0);
  }).detach();
  return true;
}();

}  // namespace
}  // namespace sluice
