#include "server/core/event_merge.h"

#include <iterator>
#include <utility>

namespace sluice {
namespace {

// Each token of a request comes with as many alternatives.
int64_t LogprobBytes(const std::vector<TokenLogprob>& logprobs) {
  if (logprobs.empty()) return 0;
  const int64_t each =
      sizeof(TokenLogprob) + logprobs.back().alternatives.size() * sizeof(TokenAlternative);
  return static_cast<int64_t>(logprobs.size()) * each;
}

int64_t DeltaBytes(const DeltaEvent& delta) {
  return static_cast<int64_t>(delta.text.size() + delta.token_ids.size() * sizeof(int32_t)) +
         LogprobBytes(delta.logprobs);
}

// The delta among events[0, size) that `delta` continues, or null.
DeltaEvent* FindPrevious(std::vector<TokenEvent>* events, size_t size, const DeltaEvent& delta) {
  for (size_t i = size; i > 0; --i) {
    DeltaEvent* previous = std::get_if<DeltaEvent>(&(*events)[i - 1]);
    if (previous == nullptr) return nullptr;
    if (previous->index == delta.index) return previous;
  }
  return nullptr;
}

void Append(DeltaEvent* to, DeltaEvent* from) {
  to->text += from->text;
  to->token_ids.insert(to->token_ids.end(), from->token_ids.begin(), from->token_ids.end());
  to->logprobs.insert(to->logprobs.end(), std::make_move_iterator(from->logprobs.begin()),
                      std::make_move_iterator(from->logprobs.end()));
}

}  // namespace

int64_t EventBytes(const TokenEvent& event) {
  int64_t bytes = sizeof(TokenEvent);
  if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
    bytes += DeltaBytes(*delta);
  } else if (const auto* prompt = std::get_if<PromptLogprobsEvent>(&event)) {
    bytes += LogprobBytes(prompt->logprobs);
  } else if (const auto* summary = std::get_if<ScoreSummaryEvent>(&event)) {
    bytes += static_cast<int64_t>(summary->next.size() * sizeof(TokenAlternative));
  }
  return bytes;
}

void MergeDeltas(std::vector<TokenEvent>* events) {
  size_t kept = 0;
  for (size_t i = 0; i < events->size(); ++i) {
    if (auto* delta = std::get_if<DeltaEvent>(&(*events)[i])) {
      DeltaEvent* previous = FindPrevious(events, kept, *delta);
      if (previous != nullptr && DeltaBytes(*previous) + DeltaBytes(*delta) <= kMergedDeltaBytes) {
        Append(previous, delta);
        continue;
      }
    }
    if (kept != i) (*events)[kept] = std::move((*events)[i]);
    ++kept;
  }
  events->resize(kept);
}

}  // namespace sluice
