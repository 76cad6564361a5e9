// A transport whose writes complete when the test says so, and that checks how it is called.
#ifndef SLUICE_TESTS_SERVER_CORE_FAKE_TRANSPORT_H_
#define SLUICE_TESTS_SERVER_CORE_FAKE_TRANSPORT_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/check.h"
#include "server/core/stream.h"
#include "server/core/stream_transport.h"

namespace sluice {

class FakeTransport : public StreamTransport {
 public:
  enum class Mode {
    kManual,  // writes complete when the test calls Complete
    kInline,  // writes complete at once, from within Write
  };

  explicit FakeTransport(Mode mode = Mode::kManual) : mode_(mode) {}

  // Like a gRPC reactor, it keeps its stream until it is done.
  void set_stream(std::shared_ptr<Stream> stream) { stream_ = std::move(stream); }
  // Called at the end of each Write and TryCancel, with no lock held. Before the stream is
  // submitted.
  void set_on_write(std::function<void()> on_write) { on_write_ = std::move(on_write); }
  void set_on_try_cancel(std::function<void()> on_try_cancel) {
    on_try_cancel_ = std::move(on_try_cancel);
  }

  void Write(std::vector<TokenEvent> events) override {
    SLUICE_CHECK(!events.empty());
    {
      std::lock_guard<std::mutex> lock(mutex_);
      SLUICE_CHECK(!in_flight_ && finishes_ == 0);
      in_flight_ = true;
      writes_.push_back(std::move(events));
      changed_.notify_all();
    }
    if (on_write_) on_write_();
    if (mode_ == Mode::kInline) Complete(true);
  }

  void Finish(absl::Status status) override {
    std::shared_ptr<Stream> stream;
    std::lock_guard<std::mutex> lock(mutex_);
    SLUICE_CHECK(!in_flight_ && finishes_ == 0);
    ++finishes_;
    status_ = std::move(status);
    stream.swap(stream_);
    on_write_ = on_try_cancel_ = nullptr;
    changed_.notify_all();
  }

  void TryCancel() override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      SLUICE_CHECK(finishes_ == 0);
      ++try_cancels_;
      changed_.notify_all();
    }
    if (on_try_cancel_) on_try_cancel_();
  }

  // Completes the write in flight, if there is one.
  bool Complete(bool ok) {
    std::shared_ptr<Stream> stream;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!in_flight_) return false;
      in_flight_ = false;
      stream = stream_;
    }
    stream->OnWriteDone(ok);
    return true;
  }

  void Leave() {
    if (std::shared_ptr<Stream> s = stream()) s->OnCancel();
  }

  void WaitForWrites(size_t count) {
    Wait([this, count] { return writes_.size() >= count; });
  }
  void WaitForTryCancel() {
    Wait([this] { return try_cancels_ > 0; });
  }
  absl::Status WaitForFinish() {
    Wait([this] { return finishes_ > 0; });
    std::lock_guard<std::mutex> lock(mutex_);
    return status_;
  }

  bool finished() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return finishes_ > 0;
  }
  int try_cancels() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return try_cancels_;
  }
  std::vector<std::vector<TokenEvent>> writes() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return writes_;
  }
  std::string text() const {
    std::string text;
    ForEach([&](const DeltaEvent& delta) { text += delta.text; });
    return text;
  }
  std::vector<int32_t> token_ids() const {
    std::vector<int32_t> ids;
    ForEach([&](const DeltaEvent& d) {
      ids.insert(ids.end(), d.token_ids.begin(), d.token_ids.end());
    });
    return ids;
  }

 private:
  std::shared_ptr<Stream> stream() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return stream_;
  }
  template <typename Condition>
  void Wait(Condition condition) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, condition);
  }
  template <typename Function>
  void ForEach(Function function) const {
    for (const auto& events : writes()) {
      for (const TokenEvent& event : events) {
        if (const auto* delta = std::get_if<DeltaEvent>(&event)) function(*delta);
      }
    }
  }

  const Mode mode_;
  std::function<void()> on_write_;
  std::function<void()> on_try_cancel_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Stream> stream_;
  bool in_flight_ = false;
  int finishes_ = 0;
  int try_cancels_ = 0;
  absl::Status status_;
  std::vector<std::vector<TokenEvent>> writes_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_SERVER_CORE_FAKE_TRANSPORT_H_
