#include "server/core/stream.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "server/core/device_thread.h"
#include "server/core/emitter.h"
#include "server/core/event_merge.h"

namespace sluice {

std::shared_ptr<Stream> Stream::Create(std::shared_ptr<StreamTransport> transport, Emitter* emitter,
                                       Permit permit, int32_t sequences) {
  // The ring has twice the room that a step needs, so that a request whose ring is half empty is
  // never paused forever: see Room.
  const int32_t capacity = std::max(emitter->limits().ring_events, 2 * RoomForStep(sequences));
  std::shared_ptr<Stream> stream(
      new Stream(std::move(transport), emitter, std::move(permit), capacity));
  emitter->Register(stream);
  return stream;
}

Stream::Stream(std::shared_ptr<StreamTransport> transport, Emitter* emitter, Permit permit,
               int32_t capacity)
    : emitter_(emitter),
      capacity_(capacity),
      transport_(std::move(transport)),
      permit_(std::move(permit)) {}

// ---- The transport's side ----

void Stream::OnWriteDone(bool ok) {
  bool tell = false;
  absl::Duration started;
  {
    MutexLock lock(&mutex_);
    SLUICE_CHECK(write_in_flight_);
    write_in_flight_ = false;
    started = write_started_;
    if (!ok) GiveUp("a write to the client failed");
    tell = MustTellEmitter();
  }
  emitter_->stats_.write_seconds.ObserveShared(absl::ToDoubleSeconds(emitter_->Now() - started));
  if (!tell) return;
  emitter_->Add(shared_from_this());
  emitter_->Ring();
}

void Stream::OnCancel() {
  MutexLock lock(&mutex_);
  GiveUp("the client left");
}

void Stream::End(absl::Status status) {
  bool tell = false;
  {
    MutexLock lock(&mutex_);
    if (gave_up_ || transport_ == nullptr || !end_status_.ok()) return;
    DropEvents();
    if (closed_) {
      close_status_ = std::move(status);
      permit_.Release();
      tell = MustTellEmitter();
    } else {
      end_status_ = absl::Status(status.code(), status.message());
      if (device_ != nullptr) device_->Cancel(shared_from_this(), std::move(status));
    }
  }
  if (!tell) return;
  emitter_->Add(shared_from_this());
  emitter_->Ring();
}

// ---- The device thread's side ----

int32_t Stream::Room() const {
  MutexLock lock(&mutex_);
  if (gave_up_ || !end_status_.ok()) return capacity_;
  const int32_t used = static_cast<int32_t>(std::min<size_t>(events_.size(), capacity_));
  const int32_t room = event_bytes_ < emitter_->limits().ring_bytes ? capacity_ - used : 0;
  // The engine does not say how much it wants. It never sleeps on a request that has half of the
  // ring.
  if (room < capacity_ / 2) starved_ = true;
  return room;
}

void Stream::Push(TokenEvent event) {
  bool tell = false;
  {
    MutexLock lock(&mutex_);
    SLUICE_CHECK(!closed_);
    if (gave_up_ || !end_status_.ok()) return;
    if (!std::holds_alternative<StartedEvent>(event)) permit_.LeaveQueue();
    const int64_t bytes = EventBytes(event);
    event_bytes_ += bytes;
    emitter_->AddRingBytes(bytes);
    events_.push_back(std::move(event));
    tell = MustTellEmitter();
  }
  if (tell) emitter_->Add(shared_from_this());
}

void Stream::Close(absl::Status status) {
  bool tell = false;
  {
    MutexLock lock(&mutex_);
    SLUICE_CHECK(!closed_);
    closed_ = true;
    close_status_ = std::move(status);
    if (gave_up_ && close_status_.ok()) close_status_ = absl::CancelledError("the client left");
    if (!end_status_.ok()) {
      close_status_ = absl::Status(end_status_.code(), end_status_.message());
    }
    if (gave_up_) permit_.Release();
    if (device_ != nullptr) std::exchange(device_, nullptr)->OnClosed(id_);
    tell = MustTellEmitter();
  }
  if (tell) emitter_->Add(shared_from_this());
}

void Stream::Bind(DeviceThread* device) {
  MutexLock lock(&mutex_);
  SLUICE_CHECK(device_ == nullptr && !closed_);
  device_ = device;
}

bool Stream::unwanted() const {
  MutexLock lock(&mutex_);
  return gave_up_ || !end_status_.ok();
}

bool Stream::closed() const {
  MutexLock lock(&mutex_);
  return closed_;
}

// ---- The emitter thread's side ----

bool Stream::Advance(absl::Duration now) {
  std::shared_ptr<StreamTransport> transport;
  std::vector<TokenEvent> events;
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    listed_ = false;
    if (write_in_flight_ || transport_ == nullptr) return false;
    if (!events_.empty()) {
      events = TakeEvents();
      write_in_flight_ = true;
      write_started_ = now;
      transport = transport_;
    } else if (closed_) {
      transport = std::move(transport_);
      status = std::move(close_status_);
      permit_.Release();
    } else {
      return false;
    }
  }
  if (events.empty()) {
    transport->Finish(std::move(status));
    return true;
  }
  MergeDeltas(&events);
  emitter_->stats_.writes.Add();
  transport->Write(std::move(events));
  return false;
}

void Stream::CancelCall(const char* why) {
  std::shared_ptr<StreamTransport> transport;
  {
    MutexLock lock(&mutex_);
    if (gave_up_ || transport_ == nullptr) return;
    GiveUp(why);
    transport = transport_;
  }
  transport->TryCancel();
}

bool Stream::CancelIfStalled(absl::Duration started) {
  std::shared_ptr<StreamTransport> transport;
  {
    MutexLock lock(&mutex_);
    if (gave_up_ || !write_in_flight_ || write_started_ > started) return false;
    GiveUp("the client reads too slowly");
    transport = transport_;
  }
  transport->TryCancel();
  return true;
}

// ---- Under the lock ----

void Stream::GiveUp(const char* why) {
  if (std::exchange(gave_up_, true)) return;
  DropEvents();
  if (closed_) {
    if (close_status_.ok()) close_status_ = absl::CancelledError(why);
    permit_.Release();
  } else if (device_ != nullptr) {
    device_->Cancel(shared_from_this(), absl::CancelledError(why));
  }
}

void Stream::DropEvents() {
  std::vector<TokenEvent>().swap(events_);
  emitter_->AddRingBytes(-std::exchange(event_bytes_, 0));
}

std::vector<TokenEvent> Stream::TakeEvents() {
  // The memory is freed too, because thousands of streams may wait.
  std::vector<TokenEvent> events = std::exchange(events_, {});
  emitter_->AddRingBytes(-std::exchange(event_bytes_, 0));
  if (std::exchange(starved_, false) && device_ != nullptr) device_->Wake();
  return events;
}

bool Stream::MustTellEmitter() {
  const bool has_work = !write_in_flight_ && transport_ != nullptr && (!events_.empty() || closed_);
  return has_work && !std::exchange(listed_, true);
}

}  // namespace sluice
