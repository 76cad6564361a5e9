#include "kernels/cuda/row_order.h"

#include <algorithm>

#include "kernels/check.h"

namespace sluice::cuda {

void RowOrder::Arrange(const StepRows& rows) {
  num_decode_ = rows.num_decode;
  prompts_.clear();
  moves_.clear();
  for (int32_t i = 0, row = num_decode_; i < rows.num_prompts; ++i) {
    moves_.push_back({row, row});
    row += rows.prompts[i].length;
  }
  int32_t row = num_decode_;
  const auto take = [&](bool is_short) {
    for (int32_t i = 0; i < rows.num_prompts; ++i) {
      const PromptSegment& segment = rows.prompts[i];
      if (IsShort(segment) != is_short) continue;
      prompts_.push_back({&segment, row});
      moves_[i].to = row;
      row += segment.length;
    }
  };
  take(true);
  short_rows_ = row - num_decode_;
  take(false);
  prompt_rows_ = row - num_decode_;
}

int32_t RowOrder::Place(int32_t row) const {
  if (row < num_decode_) return row;
  const auto next = std::ranges::upper_bound(moves_, row, {}, &Move::from);
  SLUICE_CHECK(next != moves_.begin());
  return row - next[-1].from + next[-1].to;
}

}  // namespace sluice::cuda
