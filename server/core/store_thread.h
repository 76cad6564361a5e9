// The thread that waits for the disk, so that no step does.
#ifndef SLUICE_SERVER_CORE_STORE_THREAD_H_
#define SLUICE_SERVER_CORE_STORE_THREAD_H_

#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "engine/store_job.h"
#include "server/core/mutex.h"

namespace sluice {

class StoreThread {
 public:
  using Done = std::function<void(std::unique_ptr<StoreJob>)>;

  // Starts the thread. `run` does a job (RunStoreJob of the store); it is called by the thread
  // alone.
  explicit StoreThread(std::function<void(StoreJob*)> run);
  // Runs what waits, then ends.
  ~StoreThread();

  // Has the job run, after those posted before it, and given to `done` on the store thread. Any
  // thread.
  void Post(std::unique_ptr<StoreJob> job, Done done);

 private:
  struct Task {
    std::unique_ptr<StoreJob> job;
    Done done;
  };

  void Run();

  const std::function<void(StoreJob*)> run_;
  Mutex mutex_;
  CondVar bell_;
  std::deque<Task> tasks_ SLUICE_GUARDED_BY(mutex_);
  bool stop_ SLUICE_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when all else is there
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_STORE_THREAD_H_
