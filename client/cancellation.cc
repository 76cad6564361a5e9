#include "client/cancellation.h"

#include <utility>

namespace sluice {

Cancellation::Scope::Scope(Cancellation* cancellation, std::function<void()> stop)
    : cancellation_(cancellation) {
  if (cancellation_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(cancellation_->mutex_);
  if (cancellation_->cancelled_) stop();
  entry_ = cancellation_->running_.insert(cancellation_->running_.end(), std::move(stop));
}

Cancellation::Scope::~Scope() {
  if (cancellation_ == nullptr) return;
  const std::lock_guard<std::mutex> lock(cancellation_->mutex_);
  cancellation_->running_.erase(entry_);
}

bool Cancellation::Cancel() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const bool first = !cancelled_;
  cancelled_ = true;
  for (const std::function<void()>& stop : running_) {
    if (first) stop();
  }
  return !running_.empty();
}

bool Cancellation::cancelled() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return cancelled_;
}

}  // namespace sluice
