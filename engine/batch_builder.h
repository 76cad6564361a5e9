// Fills a Step from the calls that are ready. Internal to engine/.
#ifndef SLUICE_ENGINE_BATCH_BUILDER_H_
#define SLUICE_ENGINE_BATCH_BUILDER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/batch.h"
#include "engine/call.h"
#include "engine/prompt_turns.h"
#include "engine/step_pacer.h"

namespace sluice {

class BatchBuilder {
 public:
  BatchBuilder(int64_t grid, int64_t max_batch_tokens, std::vector<int32_t> eos_token_ids)
      : prompt_turns_(grid),
        max_batch_tokens_(max_batch_tokens),
        eos_token_ids_(std::move(eos_token_ids)) {}

  // Every sequence that decodes gets a row; the rest of the budget computes prompts, which share it
  // as prompt_turns.h says. `calls` are in the order of their age. Where `pacer` bounds the step,
  // calls without a promise get what it lets them have. Marks in the calls what is launched. False:
  // no call has work.
  bool Build(absl::Span<Call* const> calls, StepPacer* pacer, Batch* batch);

 private:
  void AddInTurns(absl::Span<Call* const> calls, int64_t most, Batch* batch);
  bool AddPrompts(absl::Span<Call* const> calls, const StepPacer& pacer, int64_t own_rows,
                  Batch* batch);
  template <typename Wanted>
  void AddDecodeRows(Call* call, Wanted wanted, Batch* batch) const;
  void AddPrompt(Call* call, int64_t length, Batch* batch) const;
  void AddPromptScores(Call* call, int64_t begin, int64_t end, int32_t first_row,
                       Batch* batch) const;
  void AddStateCheck(Call* call, Batch* batch) const;
  void AddSample(Call* call, Sequence* sequence, int32_t row, Batch* batch) const;
  void AddBannedIds(Batch* batch) const;

  PromptTurns prompt_turns_;
  int64_t max_batch_tokens_;
  std::vector<int32_t> eos_token_ids_;
  uint64_t round_ = 1;  // of turns among sequences that not every step has room for
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_BATCH_BUILDER_H_
