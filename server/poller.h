// A thread that does the same thing once a second, and at once when it is poked.
#ifndef SLUICE_SERVER_POLLER_H_
#define SLUICE_SERVER_POLLER_H_

#include <functional>
#include <thread>

#include "server/core/mutex.h"

namespace sluice {

class Poller {
 public:
  // `look` runs on the poller's thread, with true when somebody poked it.
  explicit Poller(std::function<void(bool poked)> look);
  // Waits for a look that runs.
  ~Poller();

  // Any thread; does not wait for the look.
  void Poke();

 private:
  void Run();

  const std::function<void(bool)> look_;
  Mutex mutex_;
  CondVar bell_;
  bool poked_ SLUICE_GUARDED_BY(mutex_) = false;
  bool stop_ SLUICE_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when all else is there
};

}  // namespace sluice

#endif  // SLUICE_SERVER_POLLER_H_
