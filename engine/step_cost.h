// Predicts how long a step takes, learned from steps: a straight line over its decode rows, and
// another over the prompt tokens that come on top. Steps are close to that on both backends:
// weights are read once, and each row adds its state. Pure numbers, without device or clock.
#ifndef SLUICE_ENGINE_STEP_COST_H_
#define SLUICE_ENGINE_STEP_COST_H_

#include <cstdint>

#include "absl/time/time.h"

namespace sluice {

// y over x by least squares, in which older points count for less; it never falls.
class FittedLine {
 public:
  // A point counts 1/e of its weight once `memory` others have come.
  explicit FittedLine(double memory) : keep_(1 - 1 / memory) {}

  void Add(double x, double y);
  bool empty() const { return weight_ == 0; }
  // Points of one x alone say nothing of the slope: then the line goes through the origin.
  double At(double x) const;
  // The largest x >= 0 for which the line is at most y: negative if there is none, infinite if all.
  double Reach(double y) const;

 private:
  double slope() const;

  double keep_;
  double weight_ = 0;
  double x_ = 0, y_ = 0, xx_ = 0, xy_ = 0;  // weighted sums
};

class StepCost {
 public:
  void Observe(int64_t decode_rows, int64_t prompt_tokens, absl::Duration took);

  absl::Duration OfRows(int64_t decode_rows) const;
  // Decode rows of a step of `bound`; 0 as long as none was seen.
  int64_t RowsIn(absl::Duration bound) const;
  // Prompt tokens that a step of so many rows may have besides; 0 as long as none was seen.
  int64_t PromptTokensIn(absl::Duration bound, int64_t decode_rows) const;

 private:
  FittedLine rows_{1024};
  FittedLine prompts_{64};
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_STEP_COST_H_
