#include "server/core/store_thread.h"

#include <utility>

namespace sluice {

StoreThread::StoreThread(std::function<void(StoreJob*)> run)
    : run_(std::move(run)), thread_([this] { Run(); }) {}

StoreThread::~StoreThread() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    bell_.NotifyOne();
  }
  thread_.join();
}

void StoreThread::Post(std::unique_ptr<StoreJob> job, Done done) {
  MutexLock lock(&mutex_);
  tasks_.push_back({std::move(job), std::move(done)});
  bell_.NotifyOne();
}

void StoreThread::Run() {
  while (true) {
    Task task;
    {
      MutexLock lock(&mutex_);
      while (tasks_.empty() && !stop_) bell_.WaitFor(&mutex_, absl::InfiniteDuration());
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    run_(task.job.get());
    task.done(std::move(task.job));
  }
}

}  // namespace sluice
