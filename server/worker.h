// One thread for work that is too long for gRPC's few callback threads: encoding a large text.
#ifndef SLUICE_SERVER_WORKER_H_
#define SLUICE_SERVER_WORKER_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>

#include "server/core/mutex.h"

namespace sluice {

class Worker {
 public:
  // Starts the thread. At most `max_waiting` tasks wait.
  explicit Worker(size_t max_waiting);
  // Runs what waits, then ends.
  ~Worker();

  // Has `task` run on the thread. False, and nothing happens, when too many wait. Any thread.
  [[nodiscard]] bool Post(std::function<void()> task);

 private:
  void Run();

  const size_t max_waiting_;
  Mutex mutex_;
  CondVar bell_;
  std::deque<std::function<void()>> tasks_ SLUICE_GUARDED_BY(mutex_);
  bool stop_ SLUICE_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when all else is there
};

}  // namespace sluice

#endif  // SLUICE_SERVER_WORKER_H_
