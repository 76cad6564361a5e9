#include "engine/step_cost.h"

#include <algorithm>
#include <limits>

namespace sluice {
namespace {

constexpr double kMost = 1e9;  // rows or tokens; what is beyond is no bound

int64_t Whole(double count) { return static_cast<int64_t>(std::clamp(count, 0.0, kMost)); }

}  // namespace

void FittedLine::Add(double x, double y) {
  weight_ = keep_ * weight_ + 1;
  x_ = keep_ * x_ + x;
  y_ = keep_ * y_ + y;
  xx_ = keep_ * xx_ + x * x;
  xy_ = keep_ * xy_ + x * y;
}

double FittedLine::slope() const {
  constexpr double kSpread = 0.01;  // variance of x under which all points are of one x
  const double x = x_ / weight_, y = y_ / weight_;
  const double variance = xx_ / weight_ - x * x;
  const double covariance = xy_ / weight_ - x * y;
  if (variance > kSpread) return std::max(covariance / variance, 0.0);
  return x > 0 ? y / x : 0;
}

double FittedLine::At(double x) const {
  return empty() ? 0 : y_ / weight_ + slope() * (x - x_ / weight_);
}

double FittedLine::Reach(double y) const {
  if (empty()) return -1;
  const double slope = this->slope();
  if (slope > 0) return x_ / weight_ + (y - y_ / weight_) / slope;
  return y_ / weight_ <= y ? std::numeric_limits<double>::infinity() : -1;
}

void StepCost::Observe(int64_t decode_rows, int64_t prompt_tokens, absl::Duration took) {
  if (decode_rows == 0) return;
  const double seconds = absl::ToDoubleSeconds(took);
  const auto rows = static_cast<double>(decode_rows);
  if (prompt_tokens == 0) {
    rows_.Add(rows, seconds);
  } else if (!rows_.empty()) {
    prompts_.Add(static_cast<double>(prompt_tokens), std::max(seconds - rows_.At(rows), 0.0));
  }
}

absl::Duration StepCost::OfRows(int64_t decode_rows) const {
  return absl::Seconds(rows_.At(static_cast<double>(decode_rows)));
}

int64_t StepCost::RowsIn(absl::Duration bound) const {
  return Whole(rows_.Reach(absl::ToDoubleSeconds(bound)));
}

int64_t StepCost::PromptTokensIn(absl::Duration bound, int64_t decode_rows) const {
  return Whole(prompts_.Reach(absl::ToDoubleSeconds(bound - OfRows(decode_rows))));
}

}  // namespace sluice
