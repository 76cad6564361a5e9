#include "server/core/device_thread.h"

#include <algorithm>
#include <utility>

namespace sluice {
namespace {

// A deadline that has come, and that the engine could do nothing about, must not make the thread
// spin.
constexpr absl::Duration kShortestSleep = absl::Milliseconds(1);

// A new one each time: Debian's Abseil counts references where ThreadSanitizer cannot see it, so no
// status is shared between threads.
absl::Status ShuttingDown() { return absl::UnavailableError("the server is shutting down"); }

}  // namespace

DeviceThread::DeviceThread(Engine* engine, const Clock* clock, Emitter* emitter, StoreThread* store)
    : engine_(engine), clock_(clock), emitter_(emitter), store_(store), thread_([this] {
        Run();
      }) {}

// ---- Other threads ----

void DeviceThread::Submit(Request request, std::shared_ptr<Stream> stream) {
  live_requests_.fetch_add(1, std::memory_order_relaxed);
  stream->Bind(this);
  {
    MutexLock lock(&mutex_);
    if (!stop_) {
      submissions_.push_back({std::move(request), std::move(stream)});
      return RingBell();
    }
  }
  stream->Close(ShuttingDown());
  emitter_->Ring();
}

bool DeviceThread::Post(std::function<void(Sessions&)> command) {
  MutexLock lock(&mutex_);
  if (stop_) return false;
  commands_.push_back(std::move(command));
  RingBell();
  return true;
}

void DeviceThread::Wake() {
  MutexLock lock(&mutex_);
  RingBell();
}

void DeviceThread::CloseAll() {
  MutexLock lock(&mutex_);
  refusing_ = true;
  RingBell();
}

DeviceThread::Rest DeviceThread::Stop(absl::Duration bound) {
  {
    MutexLock lock(&mutex_);
    if (!stop_) flush_until_ = clock_->Now() + bound;
    refusing_ = stop_ = true;
    RingBell();
  }
  if (thread_.joinable()) thread_.join();
  return rest_;
}

void DeviceThread::HurryStop() {
  MutexLock lock(&mutex_);
  hurry_ = true;
  RingBell();
}

absl::Status DeviceThread::device_status() const {
  MutexLock lock(&mutex_);
  return absl::Status(device_status_.code(), device_status_.message());
}

void DeviceThread::set_on_device_fault(std::function<void(absl::Status)> callback) {
  {
    MutexLock lock(&mutex_);
    if (device_status_.ok()) {
      on_device_fault_ = std::move(callback);
      return;
    }
  }
  callback(device_status());
}

absl::Duration DeviceThread::StepRunningFor(absl::Duration now) const {
  const int64_t started = step_started_ns_.load(std::memory_order_relaxed);
  return started == kNoStep ? absl::ZeroDuration() : now - absl::Nanoseconds(started);
}

void DeviceThread::Cancel(std::shared_ptr<Stream> stream, absl::Status status) {
  MutexLock lock(&mutex_);
  cancellations_.push_back({std::move(stream), std::move(status)});
  RingBell();
}

void DeviceThread::RingBell() {
  rung_ = true;
  if (sleeping_) bell_.NotifyOne();
}

// ---- The device thread ----

void DeviceThread::Run() {
  while (DoCommands()) {
    const bool worked = StepEngine();
    HandOutJobs();
    emitter_->Ring();
    LatchFault();
    if (!worked) Sleep(engine_->NextDeadline() - clock_->Now());
  }
  Flush();
  LatchFault();
}

bool DeviceThread::StepEngine() {
  step_started_ns_.store(absl::ToInt64Nanoseconds(clock_->Now()), std::memory_order_relaxed);
  const bool worked = engine_->Step();
  step_started_ns_.store(kNoStep, std::memory_order_relaxed);
  return worked;
}

// Nothing new comes in: this waits for the steps in flight and for the disk.
void DeviceThread::Flush() {
  Sessions& sessions = engine_->sessions();
  sessions.PrepareToStop();
  while (true) {
    while (StepEngine()) {
    }
    HandOutJobs();
    emitter_->Ring();
    const bool waits = sessions.jobs_outstanding() || sessions.job_out();
    const absl::Duration left = FlushTimeLeft();
    if (!waits || left <= absl::ZeroDuration()) break;
    Sleep(left);
    DoCommands();
  }
  rest_.unwritten_sessions = sessions.unwritten();
  rest_.store_hangs = sessions.job_out();
  if (rest_.store_hangs) sessions.GiveUp(absl::UnavailableError("the disk does not answer"));
}

absl::Duration DeviceThread::FlushTimeLeft() const {
  MutexLock lock(&mutex_);
  return hurry_ ? absl::ZeroDuration() : flush_until_ - clock_->Now();
}

void DeviceThread::HandOutJobs() {
  for (std::unique_ptr<StoreJob>& job : engine_->sessions().TakeJobs()) {
    store_->Post(std::move(job), [this](std::unique_ptr<StoreJob> done) {
      MutexLock lock(&mutex_);
      done_jobs_.push_back(std::move(done));
      RingBell();
    });
  }
}

bool DeviceThread::DoCommands() {
  bool refuse = false;
  bool stop = false;
  {
    MutexLock lock(&mutex_);
    rung_ = false;
    stop = stop_;
    refuse = refusing_;
    taken_submissions_.swap(submissions_);
    taken_cancellations_.swap(cancellations_);
    taken_commands_.swap(commands_);
    taken_jobs_.swap(done_jobs_);
  }
  for (std::unique_ptr<StoreJob>& job : taken_jobs_) engine_->sessions().JobDone(std::move(job));
  for (const auto& command : taken_commands_) command(engine_->sessions());
  // A cancel may be for a submission taken with it, never for a later one.
  for (Submission& submission : taken_submissions_) {
    if (refuse) {
      submission.stream->Close(ShuttingDown());
    } else {
      Start(&submission);
    }
  }
  for (Cancellation& cancellation : taken_cancellations_) {
    engine_->Cancel(cancellation.stream->id_, std::move(cancellation.status));
  }
  if (refuse) CloseLive();
  taken_submissions_.clear();
  taken_cancellations_.clear();
  taken_commands_.clear();
  taken_jobs_.clear();
  emitter_->Ring();
  return !stop;
}

void DeviceThread::Start(Submission* submission) {
  Stream* stream = submission->stream.get();
  if (stream->unwanted()) return stream->Close(absl::CancelledError("the client left"));
  stream->id_ = engine_->Submit(std::move(submission->request), submission->stream);
  if (!stream->closed()) live_ids_.insert(stream->id_);
}

void DeviceThread::CloseLive() {
  const auto ids = std::exchange(live_ids_, {});
  for (uint64_t id : ids) engine_->Cancel(id, ShuttingDown());
}

void DeviceThread::OnClosed(uint64_t id) {
  live_requests_.fetch_sub(1, std::memory_order_relaxed);
  if (id != 0) live_ids_.erase(id);
}

void DeviceThread::LatchFault() {
  if (fault_latched_ || engine_->device_status().ok()) return;
  fault_latched_ = true;
  std::function<void(absl::Status)> callback;
  {
    MutexLock lock(&mutex_);
    device_status_ =
        absl::Status(engine_->device_status().code(), engine_->device_status().message());
    callback = std::move(on_device_fault_);
  }
  if (callback) callback(device_status());
}

void DeviceThread::Sleep(absl::Duration until) {
  MutexLock lock(&mutex_);
  if (rung_) return;
  sleeping_ = true;
  bell_.WaitFor(&mutex_, std::max(until, kShortestSleep));
  sleeping_ = false;
}

}  // namespace sluice
