#include "client/bench/summary.h"

#include <algorithm>
#include <utility>

namespace sluice {
namespace {

// Few slices where there are few requests to see in each: 20, 40 or 60.
int SlicesFor(size_t requests) { return requests < 200 ? 20 : requests < 800 ? 40 : 60; }

class Summarizer {
 public:
  Summarizer(const LoadResult& result, const SloTargets& targets) {
    const int slices = SlicesFor(result.requests.size());
    summary_.elapsed = result.elapsed;
    summary_.gave_up = result.gave_up;
    summary_.targets = targets;
    summary_.slice = result.elapsed / slices;
    if (summary_.slice > absl::ZeroDuration()) summary_.timeline.resize(slices);
  }

  void Add(const RequestRecord& request) {
    AddTokens(request);
    AddRunning(request);
    if (request.outcome == Outcome::kOk && Inside(request.ended)) {
      ++summary_.completed;
      summary_.reused_tokens += request.reused_tokens;
      if (TimelineSlice* slice = SliceAt(request.ended)) ++slice->completed;
    }
    if (request.measured()) AddMeasured(request);
  }

  BenchSummary Take() {
    summary_.mean_running = summary_.elapsed > absl::ZeroDuration()
                                ? absl::FDivDuration(running_time_, summary_.elapsed)
                                : 0;
    summary_.most_running = MostRunning();
    return std::move(summary_);
  }

 private:
  bool Inside(absl::Duration at) const {
    return at >= absl::ZeroDuration() && at <= summary_.elapsed;
  }

  TimelineSlice* SliceAt(absl::Duration at) {
    if (summary_.timeline.empty() || !Inside(at)) return nullptr;
    const auto i = static_cast<size_t>(absl::FDivDuration(at, summary_.slice));
    return &summary_.timeline[std::min(i, summary_.timeline.size() - 1)];
  }

  // Tokens count when they come, those that came too late or in the warm-up not at all.
  void AddTokens(const RequestRecord& request) {
    const absl::Duration first =
        request.messages.empty() ? request.ended : request.messages.front().at;
    const bool computed = !request.messages.empty() || request.outcome == Outcome::kOk;
    if (computed && Inside(first)) summary_.prompt_tokens += request.prompt_tokens;
    absl::Duration last = absl::InfiniteDuration();
    for (const TokenMessage& message : request.messages) {
      if (Inside(message.at)) AddMessage(request, message, message.at - last);
      last = message.at;
    }
  }

  // `gap` is negative for a request's first message, which has none.
  void AddMessage(const RequestRecord& request, const TokenMessage& message, absl::Duration gap) {
    ++summary_.messages;
    summary_.new_tokens += message.tokens;
    TimelineSlice* slice = SliceAt(message.at);
    if (slice != nullptr) slice->new_tokens += message.tokens;
    if (gap < absl::ZeroDuration() || !request.measured()) return;
    const absl::Duration each = gap / message.tokens;
    summary_.between_messages.Add(gap);
    summary_.inter_token.Add(each, message.tokens);
    if (slice != nullptr) slice->inter_token.Add(each, message.tokens);
  }

  void AddRunning(const RequestRecord& request) {
    const absl::Duration from = std::max(request.due, absl::ZeroDuration());
    const absl::Duration until = std::min(request.ended, summary_.elapsed);
    if (from >= until) return;
    running_time_ += until - from;
    changes_.push_back({from, 1});
    changes_.push_back({until, -1});
    for (size_t i = 0; i < summary_.timeline.size(); ++i) {
      const absl::Duration begin = summary_.slice * static_cast<int64_t>(i);
      const absl::Duration overlap =
          std::min(until, begin + summary_.slice) - std::max(from, begin);
      if (overlap > absl::ZeroDuration()) {
        summary_.timeline[i].running += absl::FDivDuration(overlap, summary_.slice);
      }
    }
  }

  void AddMeasured(const RequestRecord& request) {
    summary_.late.Add(request.sent - request.due);
    if (!request.messages.empty() && Inside(request.messages.front().at)) {
      summary_.first_token.Add(request.first_token());
      if (request.turn > 0) summary_.first_token_later.Add(request.first_token());
      if (TimelineSlice* slice = SliceAt(request.due)) {
        slice->first_token.Add(request.first_token());
      }
    }
    AddOutcome(request);
    AddVerdict(request);
  }

  void AddOutcome(const RequestRecord& request) {
    switch (request.outcome) {
      case Outcome::kOk:
        ++summary_.ok;
        summary_.whole.Add(request.whole());
        return;
      case Outcome::kCutOff:
        ++summary_.cut_off;
        if (request.messages.empty()) {
          ++summary_.cut_off_waiting;
          summary_.longest_wait = std::max(summary_.longest_wait, request.whole());
        }
        return;
      case Outcome::kRejected:
        ++summary_.rejected;
        break;
      case Outcome::kFailed:
        ++summary_.failed;
        break;
    }
    ++summary_.codes[request.code];
    ++summary_.errors[{request.code, request.error}];
  }

  void AddVerdict(const RequestRecord& request) {
    if (!summary_.targets.any()) return;
    const SloVerdict verdict = Judge(summary_.targets, request);
    if (verdict == SloVerdict::kUndecided) return;
    ++summary_.slo_judged;
    if (verdict == SloVerdict::kMissed) return;
    ++summary_.slo_met;
    summary_.slo_met_tokens += request.new_tokens();
  }

  int64_t MostRunning() {
    // At equal times ends come first.
    std::sort(changes_.begin(), changes_.end());
    int64_t running = 0;
    int64_t most = 0;
    for (const auto& [at, change] : changes_) {
      running += change;
      most = std::max(most, running);
    }
    return most;
  }

  BenchSummary summary_;
  absl::Duration running_time_;
  std::vector<std::pair<absl::Duration, int>> changes_;
};

}  // namespace

double BenchSummary::PerSecond(int64_t count) const {
  return elapsed > absl::ZeroDuration()
             ? static_cast<double>(count) / absl::ToDoubleSeconds(elapsed)
             : 0;
}

BenchSummary Summarize(const LoadResult& result, const SloTargets& targets) {
  Summarizer summarizer(result, targets);
  for (const RequestRecord& request : result.requests) summarizer.Add(request);
  return summarizer.Take();
}

}  // namespace sluice
