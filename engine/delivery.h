// From a finished step's results to events: decides when a sequence ends and what its reader sees.
// Internal to engine/.
#ifndef SLUICE_ENGINE_DELIVERY_H_
#define SLUICE_ENGINE_DELIVERY_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/batch.h"
#include "engine/call.h"
#include "engine/stats.h"
#include "engine/tokenizer/tokenizer.h"

namespace sluice {

class Delivery {
 public:
  Delivery(const Tokenizer* tokenizer, std::vector<int32_t> eos_token_ids, EngineStats* stats)
      : tokenizer_(tokenizer), eos_token_ids_(std::move(eos_token_ids)), stats_(stats) {}

  // Pushes everything the step found out for one call. Afterwards call->open_sequences == 0 means
  // that the call has said all it had to say. An error fails the call as a whole.
  absl::Status Deliver(const Batch& batch, const BatchShare& share, absl::Duration now) const;

  // Echoes, if asked to, what is computed of the prompt and not yet echoed.
  void DeliverEcho(Call* call) const;

  // Ends every open sequence of the call. The end of one that commits is left in call->end.
  void FinishAll(Call* call, FinishReason reason, absl::Duration now) const;

 private:
  absl::Status DeliverPromptScores(const Batch& batch, const BatchShare& share) const;
  void DeliverToken(Call* call, Sequence* sequence, const LogitResult& result,
                    absl::Duration now) const;
  absl::Status DeliverScoreSummary(Call* call, const Batch& batch, const BatchShare& share) const;
  // The token ended the text and is no part of it.
  void LeaveOut(int32_t token, HistoryEnd* end) const;
  void RecordToken(const Call& call, Sequence* sequence, absl::Duration now) const;
  bool IsStop(const Request& request, int32_t token, FinishReason* reason) const;
  void Finish(Call* call, Sequence* sequence, FinishedEvent event, absl::Duration now) const;

  const Tokenizer* tokenizer_;
  std::vector<int32_t> eos_token_ids_;
  EngineStats* stats_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_DELIVERY_H_
