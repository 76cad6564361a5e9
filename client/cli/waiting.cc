#include "client/cli/waiting.h"

#include <chrono>
#include <utility>

namespace sluice {
namespace {

constexpr std::chrono::milliseconds kFirst(1000);
constexpr std::chrono::milliseconds kNext(500);
constexpr char kClearLine[] = "\r\033[K";

}  // namespace

Waiting::Waiting(const Io& io) : io_(io) {
  if (io_.err_is_terminal) thread_ = std::thread([this] { Run(); });
}

void Waiting::Say(std::string what) {
  const std::lock_guard<std::mutex> lock(mutex_);
  what_ = std::move(what);
}

void Waiting::Stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  bell_.notify_one();
  thread_.join();
}

void Waiting::Run() {
  const auto started = std::chrono::steady_clock::now();
  std::unique_lock<std::mutex> lock(mutex_);
  bool shown = false;
  while (!bell_.wait_for(lock, shown ? kNext : kFirst, [this] { return stop_; })) {
    if (what_.empty()) continue;
    const auto passed = std::chrono::steady_clock::now() - started;
    io_.err << kClearLine << "(" << what_ << ", "
            << std::chrono::duration_cast<std::chrono::seconds>(passed).count() << " s)"
            << std::flush;
    shown = true;
  }
  if (shown) io_.err << kClearLine << std::flush;
}

}  // namespace sluice
