// Fills a Step from the calls that are ready. Internal to engine/.
#ifndef SLUICE_ENGINE_BATCH_BUILDER_H_
#define SLUICE_ENGINE_BATCH_BUILDER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/batch.h"
#include "engine/call.h"

namespace sluice {

class BatchBuilder {
 public:
  BatchBuilder(int64_t grid, int64_t max_batch_tokens, std::vector<int32_t> eos_token_ids)
      : grid_(grid),
        max_batch_tokens_(max_batch_tokens),
        eos_token_ids_(std::move(eos_token_ids)) {}

  // Every sequence that decodes gets a row; the rest of the budget computes prompts, in the order
  // of `calls`. Marks in the calls what is launched. False: no call has work.
  bool Build(absl::Span<Call* const> calls, Batch* batch) const;

 private:
  void AddDecodeRows(Call* call, Batch* batch) const;
  void AddPrompt(Call* call, int64_t length, Batch* batch) const;
  void AddPromptScores(Call* call, int64_t begin, int64_t end, int32_t first_row,
                       Batch* batch) const;
  void AddStateCheck(Call* call, Batch* batch) const;
  void AddSample(Call* call, Sequence* sequence, int32_t row, Batch* batch) const;
  void AddBannedIds(Batch* batch) const;

  int64_t grid_;
  int64_t max_batch_tokens_;
  std::vector<int32_t> eos_token_ids_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_BATCH_BUILDER_H_
