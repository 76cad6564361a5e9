// Bodies of requests, of which all that are not parsed yet share one bound.
#ifndef SLUICE_SERVER_HTTP_HTTP_BODY_H_
#define SLUICE_SERVER_HTTP_HTTP_BODY_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"

namespace sluice {

// Any thread.
class BodyBudget {
 public:
  explicit BodyBudget(int64_t max_bytes) : max_bytes_(max_bytes) {}
  // False, and nothing happens, when there would be more than max_bytes.
  bool Reserve(int64_t bytes) {
    if (used_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= max_bytes_) return true;
    Release(bytes);
    return false;
  }
  void Release(int64_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }

 private:
  const int64_t max_bytes_;
  std::atomic<int64_t> used_{0};
};

// Gives its bytes back at its end. The budget outlives it. One thread at a time.
class HttpBody {
 public:
  HttpBody() = default;
  explicit HttpBody(BodyBudget* budget) : budget_(budget) {}
  HttpBody(HttpBody&& other) noexcept { *this = std::move(other); }
  HttpBody& operator=(HttpBody&& other) noexcept {
    std::swap(budget_, other.budget_);
    text_.swap(other.text_);
    return *this;
  }
  ~HttpBody() {
    if (budget_ != nullptr) budget_->Release(static_cast<int64_t>(text_.size()));
  }

  // False when there is no room.
  bool Append(absl::string_view bytes) {
    if (!budget_->Reserve(static_cast<int64_t>(bytes.size()))) return false;
    text_.append(bytes.data(), bytes.size());
    return true;
  }
  const std::string& text() const { return text_; }

 private:
  BodyBudget* budget_ = nullptr;
  std::string text_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HTTP_BODY_H_
