#include "server/poller.h"

#include <utility>

#include "absl/time/time.h"

namespace sluice {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(1);

}  // namespace

Poller::Poller(std::function<void(bool poked)> look)
    : look_(std::move(look)), thread_([this] { Run(); }) {}

Poller::~Poller() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    bell_.NotifyOne();
  }
  thread_.join();
}

void Poller::Poke() {
  MutexLock lock(&mutex_);
  poked_ = true;
  bell_.NotifyOne();
}

void Poller::Run() {
  while (true) {
    bool poked = false;
    {
      MutexLock lock(&mutex_);
      if (!stop_ && !poked_) bell_.WaitFor(&mutex_, kInterval);
      if (stop_) return;
      poked = std::exchange(poked_, false);
    }
    look_(poked);
  }
}

}  // namespace sluice
