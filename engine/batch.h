// One step of the backend and what its rows belong to. Internal to engine/.
#ifndef SLUICE_ENGINE_BATCH_H_
#define SLUICE_ENGINE_BATCH_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "engine/call.h"
#include "kernels/backend.h"

namespace sluice {

inline constexpr int32_t kPromptToken = -1;
inline constexpr int32_t kStateCheck = -2;

// Says whose LogitRow it is: that of a sequence's next token, of a token of the prompt (sequence ==
// kPromptToken), or of nobody (kStateCheck): it then only tells whether the state behind the row is
// finite.
struct LogitTarget {
  Call* call = nullptr;
  int32_t sequence = kPromptToken;
  bool ban_stops = false;  // below min_new_tokens: EOS and stop tokens cannot be sampled
};

// A call's share of a step: its logit rows are [logits_begin, logits_end).
struct BatchShare {
  Call* call = nullptr;
  int64_t prompt_begin =
      0;  // prompt tokens [prompt_begin, prompt_end) are computed; empty for a decoding call
  int64_t prompt_end = 0;
  size_t logits_begin = 0;
  size_t logits_end = 0;

  int64_t rows() const {
    const int64_t prompt = prompt_end - prompt_begin;
    return prompt > 0 ? prompt : static_cast<int64_t>(logits_end - logits_begin);
  }
};

// Reused from step to step, so that a steady state allocates nothing. Everything the backend reads
// until the step is awaited lives here or in the calls.
struct Batch {
  std::vector<DecodeRow> decode;
  std::vector<PromptSegment> prompts;
  std::vector<LogitRow> logits;
  std::vector<LogitTarget> targets;  // one for each of `logits`
  std::vector<LogitResult> results;
  std::vector<BatchShare> shares;
  std::vector<int32_t> banned;  // EOS and stop ids of the calls below their min_new_tokens
  StepRows rows;
  Ticket ticket = 0;
  absl::Duration launched;
  int32_t num_rows = 0;
  int64_t held_rows = 0;  // decode rows that were left out for another tenant's inter-token time

  void Clear() {
    decode.clear();
    prompts.clear();
    logits.clear();
    targets.clear();
    shares.clear();
    num_rows = 0;
    held_rows = 0;
  }
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_BATCH_H_
