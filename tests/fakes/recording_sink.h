// A TokenSink that keeps what it is given, with room to spare unless told otherwise.
#ifndef SLUICE_TESTS_FAKES_RECORDING_SINK_H_
#define SLUICE_TESTS_FAKES_RECORDING_SINK_H_

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/token_sink.h"
#include "kernels/check.h"

namespace sluice {

class RecordingSink : public TokenSink {
 public:
  int32_t Room() const override { return room; }
  void Push(TokenEvent event) override {
    SLUICE_CHECK(!status.has_value());
    if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
      text[delta->index] += delta->text;
      auto& ids = token_ids[delta->index];
      ids.insert(ids.end(), delta->token_ids.begin(), delta->token_ids.end());
      auto& probs = logprobs[delta->index];
      probs.insert(probs.end(), delta->logprobs.begin(), delta->logprobs.end());
    } else if (const auto* end = std::get_if<FinishedEvent>(&event)) {
      SLUICE_CHECK(finished.emplace(end->index, *end).second);
    } else if (const auto* prompt = std::get_if<PromptLogprobsEvent>(&event)) {
      prompt_logprobs.insert(prompt_logprobs.end(), prompt->logprobs.begin(),
                             prompt->logprobs.end());
    } else if (const auto* score = std::get_if<ScoreSummaryEvent>(&event)) {
      summary = *score;
    }
    events.push_back(std::move(event));
  }
  void Close(absl::Status s) override {
    SLUICE_CHECK(!status.has_value());
    status = std::move(s);
  }

  int32_t room = 1 << 20;
  std::vector<TokenEvent> events;
  std::map<int32_t, std::string> text;
  std::map<int32_t, std::vector<int32_t>> token_ids;
  std::map<int32_t, std::vector<TokenLogprob>> logprobs;
  std::map<int32_t, FinishedEvent> finished;
  std::vector<TokenLogprob> prompt_logprobs;
  std::optional<ScoreSummaryEvent> summary;
  std::optional<absl::Status> status;  // set once closed
};

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_RECORDING_SINK_H_
