// The order in which a step's rows lie on the device: decode rows, then those of short prompts,
// which are multiplied together with them, then all other prompts'. Host code only.
#ifndef SLUICE_KERNELS_CUDA_ROW_ORDER_H_
#define SLUICE_KERNELS_CUDA_ROW_ORDER_H_

#include <cstdint>
#include <vector>

#include "kernels/cuda/step_meta.h"
#include "kernels/step_rows.h"

namespace sluice::cuda {

class RowOrder {
 public:
  struct Prompt {
    const PromptSegment* segment;
    int32_t row;  // its first, on the device
  };

  // Prompts of up to `longest_short` tokens, fewer than kSpan, are short; 0: none is.
  explicit RowOrder(int32_t longest_short) : longest_short_(longest_short) {}

  // The arrays that `rows` points to outlive the uses of prompts().
  void Arrange(const StepRows& rows);

  // By their rows on the device; of each kind, as the step has them.
  const std::vector<Prompt>& prompts() const { return prompts_; }
  int32_t short_rows() const { return short_rows_; }    // of short prompts
  int32_t prompt_rows() const { return prompt_rows_; }  // of all prompts
  // The place of row `row` of the step.
  int32_t Place(int32_t row) const;

 private:
  struct Move {
    int32_t from, to;  // a segment's first row: of the step, on the device
  };

  // A function of the prompt alone: prompts are cut at multiples of kSpan, so a segment that begins
  // one and is shorter than that is all of it.
  bool IsShort(const PromptSegment& segment) const {
    return segment.start == 0 && segment.length <= longest_short_;
  }

  const int32_t longest_short_;
  int32_t num_decode_ = 0, short_rows_ = 0, prompt_rows_ = 0;
  std::vector<Prompt> prompts_;
  std::vector<Move> moves_;  // a segment each, ascending
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_ROW_ORDER_H_
