#include "server/core/emitter.h"

#include <utility>

#include "server/core/stream.h"

namespace sluice {

Emitter::Emitter(const Clock* clock, const StreamLimits& limits)
    : clock_(clock), limits_(limits), thread_([this] { Run(); }) {}

void Emitter::Ring() {
  MutexLock lock(&mutex_);
  if (rung_ || news_.empty()) return;
  rung_ = true;
  if (sleeping_) bell_.NotifyOne();
}

void Emitter::CancelAll() {
  MutexLock lock(&mutex_);
  cancel_all_ = rung_ = true;
  if (sleeping_) bell_.NotifyOne();
}

void Emitter::Stop() {
  {
    MutexLock lock(&mutex_);
    stop_ = rung_ = true;
    if (sleeping_) bell_.NotifyOne();
  }
  if (thread_.joinable()) thread_.join();
}

int64_t Emitter::live_streams() const {
  MutexLock lock(&mutex_);
  return static_cast<int64_t>(live_.size());
}

void Emitter::Register(std::shared_ptr<Stream> stream) {
  MutexLock lock(&mutex_);
  live_.insert(std::move(stream));
}

void Emitter::Add(std::shared_ptr<Stream> stream) {
  MutexLock lock(&mutex_);
  news_.push_back(std::move(stream));
}

void Emitter::Run() {
  // A sweep over all streams costs less than a timer for each write.
  const absl::Duration sweep_interval = limits_.write_stall / 8;
  absl::Duration next_sweep = clock_->Now() + sweep_interval;
  std::vector<std::shared_ptr<Stream>> news;
  bool stop = false;
  while (!stop) {
    bool cancel_all = false;
    {
      MutexLock lock(&mutex_);
      if (!rung_) {
        sleeping_ = true;
        bell_.WaitFor(&mutex_, live_.empty() ? absl::InfiniteDuration() : sweep_interval);
        sleeping_ = false;
        stats_.wake_ups.Add();
      }
      rung_ = false;
      stop = stop_;
      cancel_all = std::exchange(cancel_all_, false);
      news.swap(news_);
    }
    Advance(&news);
    if (cancel_all) {
      for (const auto& stream : LiveStreams()) stream->CancelCall("the server is shutting down");
    }
    const absl::Duration now = clock_->Now();
    if (now < next_sweep) continue;
    next_sweep = now + sweep_interval;
    for (const auto& stream : LiveStreams()) {
      if (stream->CancelIfStalled(now - limits_.write_stall)) stats_.slow_readers.Add();
    }
  }
}

void Emitter::Advance(std::vector<std::shared_ptr<Stream>>* streams) {
  for (std::shared_ptr<Stream>& stream : *streams) {
    if (!stream->Advance(clock_->Now())) continue;
    MutexLock lock(&mutex_);
    live_.erase(stream);
  }
  streams->clear();
}

std::vector<std::shared_ptr<Stream>> Emitter::LiveStreams() const {
  MutexLock lock(&mutex_);
  return {live_.begin(), live_.end()};
}

}  // namespace sluice
