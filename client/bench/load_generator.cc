#include "client/bench/load_generator.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "client/error.h"

namespace sluice {

LoadGenerator::LoadGenerator(const Client& client, MakeRequest make_request,
                             Cancellation* cancellation)
    : address_(client.address()),
      stub_(v1::InferenceService::NewStub(client.channel())),
      session_stub_(v1::SessionService::NewStub(client.channel())),
      session_client_(client),
      make_request_(std::move(make_request)),
      cancellation_(cancellation) {}

LoadResult LoadGenerator::Run(const LoadOptions& options, absl::Duration progress_interval,
                              const OnProgress& on_progress) {
  const Cancellation::Scope scope(cancellation_, [this] {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  });
  LoadResult result;
  tokens_ = 0;
  turns_ = options.turns;
  const bool open_loop = options.arrivals.rate > 0;
  Arrivals arrivals(options.arrivals);
  absl::Duration next_arrival = BenchNow();
  const absl::Duration start = next_arrival + options.warmup;
  const absl::Duration end = start + options.duration;
  absl::Duration next_progress = next_arrival + progress_interval;
  int64_t to_start = options.requests;
  for (;;) {
    CollectDone(/*cut_off=*/false, &result);
    const absl::Duration now = BenchNow();
    if (now >= end || stopped() || result.gave_up) break;
    if (to_start == 0 && running_.empty()) break;
    for (NextTurn& next : next_turns_) {
      if (to_start == 0) break;
      StartStream(options, start, now, std::move(next.session_id), next.turn);
      if (now >= start) --to_start;
    }
    next_turns_.clear();
    while (to_start > 0 &&
           (open_loop ? next_arrival <= now
                      : static_cast<int64_t>(running_.size()) < options.concurrency)) {
      const absl::Duration due = open_loop ? next_arrival : now;
      StartStream(options, start, due);
      if (due >= start) --to_start;
      if (open_loop) next_arrival += arrivals.NextGap();
    }
    if (now >= next_progress) {
      on_progress({now - start, static_cast<int64_t>(result.requests.size()),
                   static_cast<int64_t>(running_.size()), tokens_.load()});
      next_progress = now + progress_interval;
    }
    absl::Duration wake = std::min(end, next_progress);
    if (open_loop && to_start > 0) wake = std::min(wake, next_arrival);
    WaitForDone(wake);
  }
  result.elapsed = std::max(BenchNow() - start, absl::ZeroDuration());
  CutOffRunning(&result);
  RemoveSessions();
  return result;
}

void LoadGenerator::StartStream(const LoadOptions& load, absl::Duration origin, absl::Duration due,
                                std::string session_id, int32_t turn) {
  if (load.turns > 1 && session_id.empty()) {
    session_id = NewSessionId();
    sessions_.push_back(session_id);
  }
  StreamOptions options = {next_index_++, origin, due, load.timeout, std::move(session_id), turn};
  auto stream = std::make_unique<BenchStream>(make_request_(options.index), options, &tokens_,
                                              [this](BenchStream* done) {
                                                const std::lock_guard<std::mutex> lock(mutex_);
                                                done_.push_back(done);
                                                changed_.notify_all();
                                              });
  BenchStream* started = stream.get();
  running_.emplace(started, std::move(stream));
  started->Start(stub_.get(), session_stub_.get());
}

// Removes what it can; sessions that stay have a time to live.
void LoadGenerator::RemoveSessions() {
  next_turns_.clear();
  for (const std::string& id : sessions_) {
    v1::DeleteSessionRequest request;
    request.set_id(id);
    const absl::Status status = session_client_.Remove(request, {.timeout = absl::Seconds(5)});
    if (!status.ok() && !absl::IsNotFound(status)) break;
  }
  sessions_.clear();
}

void LoadGenerator::CollectDone(bool cut_off, LoadResult* result) {
  std::vector<BenchStream*> done;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    done.swap(done_);
  }
  for (BenchStream* stream : done) {
    Record(stream, cut_off, result);
    const RequestRecord& record = result->requests.back();
    if (record.outcome == Outcome::kOk && record.turn + 1 < turns_) {
      next_turns_.push_back({stream->session_id(), record.turn + 1});
    }
    running_.erase(stream);
  }
}

void LoadGenerator::Record(BenchStream* stream, bool cut_off, LoadResult* result) const {
  RequestRecord& record = *stream->record();
  const absl::Status status = ToAbslStatus(stream->status(), address_);
  record.code = status.code();
  if (status.ok() && stream->finished()) {
    record.outcome = Outcome::kOk;
  } else if (cut_off && absl::IsCancelled(status)) {
    record.outcome = Outcome::kCutOff;
    // The time that stopping takes does not count as the run's.
    record.ended = std::min(record.ended, result->elapsed);
    while (!record.messages.empty() && record.messages.back().at > result->elapsed) {
      record.messages.pop_back();
    }
  } else {
    record.outcome = absl::IsResourceExhausted(status) ? Outcome::kRejected : Outcome::kFailed;
    record.error =
        status.ok() ? "the stream ended without a normal Finished" : std::string(status.message());
    // Draining or gone: there is nothing left to measure.
    if (absl::IsUnavailable(status)) result->gave_up = true;
  }
  result->requests.push_back(std::move(record));
}

void LoadGenerator::CutOffRunning(LoadResult* result) {
  for (const auto& [stream, owned] : running_) stream->Cancel();
  while (!running_.empty()) {
    CollectDone(/*cut_off=*/true, result);
    if (!running_.empty()) {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return !done_.empty(); });
    }
  }
}

bool LoadGenerator::stopped() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return stopped_;
}

void LoadGenerator::WaitForDone(absl::Duration until) {
  std::unique_lock<std::mutex> lock(mutex_);
  const absl::Duration wait = std::min(until - BenchNow(), absl::Hours(1));
  changed_.wait_for(lock, absl::ToChronoNanoseconds(std::max(wait, absl::ZeroDuration())),
                    [this] { return !done_.empty() || stopped_; });
}

}  // namespace sluice
