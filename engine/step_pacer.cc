#include "engine/step_pacer.h"

#include <algorithm>

namespace sluice {

void StepPacer::Begin(absl::Span<Call* const> calls) {
  bound_ = absl::InfiniteDuration();
  bool others_decode = false;
  bool others_prompt = false;
  for (const Call* call : calls) {
    if (call->state != CallState::kReady) continue;
    if (!HasPromise(*call)) {
      (call->in_prompt() ? others_prompt : others_decode) = true;
    } else if (call->decodes()) {
      bound_ = std::min(bound_, call->request.inter_token);
    }
  }
  wide_ = Wide::kNo;
  if (!bounded() || since_wide_ < kWideEvery) return;
  if (others_decode && others_prompt) {
    wide_ = last_wide_ == Wide::kRows ? Wide::kPrompts : Wide::kRows;
  } else if (others_decode || others_prompt) {
    wide_ = others_decode ? Wide::kRows : Wide::kPrompts;
  }
}

absl::Duration StepPacer::WideBound(int64_t own) const {
  // The bound counts from the time of the own rows where that is more than was promised.
  return kWide * std::max(bound_, cost_.OfRows(own));
}

int64_t StepPacer::OtherRows(int64_t own) const {
  const bool wide = wide_ == Wide::kRows;
  const int64_t fit = cost_.RowsIn(wide ? WideBound(own) : bound_) - own;
  return std::max<int64_t>(fit, wide ? 1 : 0);
}

int64_t StepPacer::OtherPromptTokens(int64_t own, int64_t rows) const {
  const bool wide = wide_ == Wide::kPrompts;
  const int64_t fit = cost_.PromptTokensIn(wide ? WideBound(own) : bound_, rows);
  return std::max<int64_t>(fit, wide ? grid_ : 0);
}

void StepPacer::Formed(bool others_served) {
  if (!bounded()) return;
  ++since_wide_;
  if (wide_ == Wide::kNo || !others_served) return;
  last_wide_ = wide_;
  since_wide_ = 0;
}

void StepPacer::Observe(const Batch& batch, absl::Duration took) {
  const int64_t rows = batch.rows.num_decode;
  cost_.Observe(rows, batch.num_rows - rows, took);
}

}  // namespace sluice
