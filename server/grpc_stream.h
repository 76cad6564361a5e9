// The gRPC side of a stream: a ServerWriteReactor that server/core's Stream writes through.
//
// Stream makes sure that one Write is in flight at most and that Finish comes once, after it
// (server/core/stream.h). One Write of several events becomes several messages: OnWriteDone starts
// the next of them, and tells the Stream after the last.
#ifndef SLUICE_SERVER_GRPC_STREAM_H_
#define SLUICE_SERVER_GRPC_STREAM_H_

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "engine/clock.h"
#include "server/call_stats.h"
#include "server/core/mutex.h"
#include "server/core/stream.h"
#include "server/core/stream_transport.h"
#include "server/live_calls.h"
#include "server/status.h"

namespace sluice {

// Metadata that names the call: initial, or trailing of a call that was refused.
inline constexpr char kRequestId[] = "x-request-id";

// `Converter` turns a vector of TokenEvents into a vector of its `Response` messages.
template <typename Converter>
class GrpcStream final : public grpc::ServerWriteReactor<typename Converter::Response>,
                         public StreamTransport {
 public:
  using Response = typename Converter::Response;

  // Lives until gRPC is done with it and nobody else refers to it. `context`, `stats` and `clock`
  // outlive it.
  static std::shared_ptr<GrpcStream> Create(grpc::CallbackServerContext* context,
                                            Converter converter, CallRecord call, CallStats* stats,
                                            const Clock* clock) {
    std::shared_ptr<GrpcStream> stream(
        new GrpcStream(context, std::move(converter), std::move(call), stats, clock));
    stream->self_ = stream;
    return stream;
  }

  // Before the stream's Submit. A client that left already is reported to it now.
  void Attach(std::shared_ptr<Stream> stream) {
    Stream* const attached = stream.get();
    bool cancelled;
    {
      MutexLock lock(&mutex_);
      stream_ = std::move(stream);
      cancelled = cancelled_;
    }
    if (cancelled) attached->OnCancel();
  }

  // The reactor keeps `place` for as long as it lives. Call it before the stream's Submit.
  void Hold(LiveCalls::Place place) { place_ = std::move(place); }

  void Write(std::vector<TokenEvent> events) override {
    for (const TokenEvent& event : events) Record(event);
    messages_ = converter_.Convert(std::move(events));
    next_ = 0;
    if (messages_.empty()) return attached()->OnWriteDone(true);
    if (!std::exchange(answered_, true)) context_->AddInitialMetadata(kRequestId, call_.request_id);
    this->StartWrite(&messages_[0]);
  }

  // Also without a Stream attached, for a call that was refused.
  void Finish(absl::Status status) override {
    // A deadline and a cancel look the same from here.
    if (absl::IsCancelled(status) && context_->deadline() <= std::chrono::system_clock::now()) {
      status = absl::DeadlineExceededError("the call's deadline passed");
    }
    // gRPC's own clients obey this trailer when they retry.
    if (const std::optional<int64_t> retry_ms = RetryMilliseconds(status)) {
      context_->AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(*retry_ms));
    }
    // A call that is refused gets nothing but trailers: proxies and gRPC's clients retry no other.
    if (!answered_) context_->AddTrailingMetadata(kRequestId, call_.request_id);
    // Before the client can know that the call has ended.
    stats_->Done(call_, static_cast<grpc::StatusCode>(status.code()), clock_->Now());
    grpc::ServerWriteReactor<Response>::Finish(ToGrpcStatus(status));
  }

  void TryCancel() override { context_->TryCancel(); }

  // ---- Reactions, on gRPC's threads ----

  void OnWriteDone(bool ok) override {
    if (ok && ++next_ < messages_.size()) return this->StartWrite(&messages_[next_]);
    messages_ = {};  // of thousands of streams that wait, half a kilobyte each
    attached()->OnWriteDone(ok);
  }

  void OnCancel() override {
    std::shared_ptr<Stream> stream;
    {
      MutexLock lock(&mutex_);
      cancelled_ = true;
      stream = stream_;
    }
    if (stream != nullptr) stream->OnCancel();
  }

  void OnDone() override {
    std::shared_ptr<Stream> stream;
    {
      MutexLock lock(&mutex_);
      stream = std::move(stream_);  // else the two would keep each other alive
    }
    self_.reset();
  }

 private:
  GrpcStream(grpc::CallbackServerContext* context, Converter converter, CallRecord call,
             CallStats* stats, const Clock* clock)
      : context_(context),
        converter_(std::move(converter)),
        call_(std::move(call)),
        stats_(stats),
        clock_(clock) {}

  std::shared_ptr<Stream> attached() {
    MutexLock lock(&mutex_);
    return stream_;
  }

  void Record(const TokenEvent& event) {
    if (const auto* started = std::get_if<StartedEvent>(&event)) {
      call_.prompt_tokens = started->prompt_tokens;
    } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
      call_.new_tokens += finished->usage.new_tokens;
      call_.time_to_first_token = finished->timings.time_to_first_token;
    }
  }

  grpc::CallbackServerContext* const context_;
  Converter converter_;
  CallRecord call_;
  CallStats* const stats_;
  const Clock* const clock_;

  LiveCalls::Place place_;
  bool answered_ = false;  // a message was written, and with it the initial metadata
  // The messages of the write in flight.
  std::vector<Response> messages_;
  size_t next_ = 0;

  Mutex mutex_;
  std::shared_ptr<Stream> stream_ SLUICE_GUARDED_BY(mutex_);
  bool cancelled_ SLUICE_GUARDED_BY(mutex_) = false;
  std::shared_ptr<GrpcStream> self_;  // until OnDone
};

}  // namespace sluice

#endif  // SLUICE_SERVER_GRPC_STREAM_H_
