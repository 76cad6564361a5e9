#include "server/worker.h"

#include <utility>

namespace sluice {

Worker::Worker(size_t max_waiting) : max_waiting_(max_waiting), thread_([this] { Run(); }) {}

Worker::~Worker() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    bell_.NotifyOne();
  }
  thread_.join();
}

bool Worker::Post(std::function<void()> task) {
  MutexLock lock(&mutex_);
  if (tasks_.size() >= max_waiting_) return false;
  tasks_.push_back(std::move(task));
  bell_.NotifyOne();
  return true;
}

void Worker::Run() {
  while (true) {
    std::function<void()> task;
    {
      MutexLock lock(&mutex_);
      while (tasks_.empty() && !stop_) bell_.WaitFor(&mutex_, absl::InfiniteDuration());
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace sluice
