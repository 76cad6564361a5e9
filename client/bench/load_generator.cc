#include "client/bench/load_generator.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/error.h"

namespace sluice {

uint64_t NextRandom(uint64_t* state) {
  uint64_t z = (*state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

absl::Duration NextArrivalGap(double rate, uint64_t* random) {
  // In (0, 1], so that the logarithm is finite.
  const double uniform = (static_cast<double>(NextRandom(random) >> 11) + 1) * 0x1p-53;
  return absl::Seconds(-std::log(uniform) / rate);
}

LoadGenerator::LoadGenerator(const Client& client, MakeRequest make_request,
                             Cancellation* cancellation)
    : address_(client.address()),
      stub_(v1::InferenceService::NewStub(client.channel())),
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
  const bool open_loop = options.rate > 0;
  const absl::Duration start = BenchNow();
  const absl::Duration end = start + options.duration;
  uint64_t random = options.seed;
  absl::Duration next_arrival = start;
  absl::Duration next_progress = start + progress_interval;
  int64_t to_start = options.requests;
  for (;;) {
    CollectDone(/*cut_off=*/false, &result);
    const absl::Duration now = BenchNow();
    if (now >= end || stopped() || result.gave_up) break;
    if (to_start == 0 && running_.empty()) break;
    while (to_start > 0 &&
           (open_loop ? next_arrival <= now
                      : static_cast<int64_t>(running_.size()) < options.concurrency)) {
      StartStream(open_loop ? next_arrival : now, options);
      --to_start;
      if (open_loop) next_arrival += NextArrivalGap(options.rate, &random);
    }
    if (now >= next_progress) {
      on_progress({now - start, result.ok + result.failed, static_cast<int64_t>(running_.size()),
                   tokens_.load()});
      next_progress = now + progress_interval;
    }
    absl::Duration wake = std::min(end, next_progress);
    if (open_loop && to_start > 0) wake = std::min(wake, next_arrival);
    WaitForDone(wake);
  }
  result.elapsed = BenchNow() - start;
  result.new_tokens = tokens_.load();
  CutOffRunning(&result);
  return result;
}

void LoadGenerator::StartStream(absl::Duration scheduled, const LoadOptions& options) {
  auto stream = std::make_unique<BenchStream>(make_request_(next_index_++), scheduled,
                                              options.timeout, &tokens_, [this](BenchStream* done) {
                                                const std::lock_guard<std::mutex> lock(mutex_);
                                                done_.push_back(done);
                                                changed_.notify_all();
                                              });
  BenchStream* started = stream.get();
  running_.emplace(started, std::move(stream));
  started->Start(stub_.get());
}

void LoadGenerator::CollectDone(bool cut_off, LoadResult* result) {
  std::vector<BenchStream*> done;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    done.swap(done_);
  }
  for (BenchStream* stream : done) {
    Record(stream->result(), cut_off, result);
    running_.erase(stream);
  }
}

void LoadGenerator::Record(const StreamResult& stream, bool cut_off, LoadResult* result) const {
  const bool ok = stream.status.ok() && stream.finished;
  if (ok) {
    ++result->ok;
    result->whole.Add(stream.whole);
  } else if (cut_off && stream.status.error_code() == grpc::StatusCode::CANCELLED) {
    ++result->cut_off;
  } else {
    ++result->failed;
    const absl::Status status = ToAbslStatus(stream.status, address_);
    ++result->errors[status.ok() ? "the stream ended without a normal Finished"
                                 : absl::StrCat(status.message(), " (",
                                                absl::StatusCodeToString(status.code()), ")")];
    // Draining or gone: there is nothing left to measure.
    if (status.code() == absl::StatusCode::kUnavailable) result->gave_up = true;
  }
  // A prompt that was admitted but cut off before its first token was not computed, as far as one
  // can see.
  if (ok || stream.messages > 0) result->prompt_tokens += stream.prompt_tokens;
  result->messages += stream.messages;
  if (stream.messages > 0) result->first_token.Add(stream.first_token);
  result->inter_token.AddAll(stream.inter_token);
  result->between_messages.AddAll(stream.between_messages);
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
