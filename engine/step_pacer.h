// Keeps the inter-token time that tenants were promised (Request::inter_token): as long as a call
// of theirs decodes, calls without such a promise get of each step what it has room for, in turns.
// Their states wait in their slots meanwhile, which costs nothing.
//
// So that nobody stands still whatever was promised, one step in kWideEvery is wide: it may take
// kWide times as long, and has at least one row or one cut of a prompt of theirs; rows and prompts
// take turns. That is a thirty-second of the time.
#ifndef SLUICE_ENGINE_STEP_PACER_H_
#define SLUICE_ENGINE_STEP_PACER_H_

#include <cstdint>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/batch.h"
#include "engine/call.h"
#include "engine/step_cost.h"

namespace sluice {

class StepPacer {
 public:
  static constexpr int32_t kWideEvery = 512;
  static constexpr int32_t kWide = 16;

  explicit StepPacer(int64_t grid) : grid_(grid) {}

  // Looks at the calls that the next step is formed of.
  void Begin(absl::Span<Call* const> calls);
  // True if that step is bounded. The functions below count only then.
  bool bounded() const { return bound_ < absl::InfiniteDuration(); }
  // Decode rows of calls without a promise that fit beside `own` rows of those with one.
  int64_t OtherRows(int64_t own) const;
  // Prompt tokens of calls without a promise that fit beside `rows` decode rows in all, of which
  // `own` are of calls with one.
  int64_t OtherPromptTokens(int64_t own, int64_t rows) const;
  // The step was formed. `others_served`: a call without a promise is in it.
  void Formed(bool others_served);
  // A step is done.
  void Observe(const Batch& batch, absl::Duration took);

 private:
  enum class Wide : uint8_t { kNo, kRows, kPrompts };

  absl::Duration WideBound(int64_t own) const;

  const int64_t grid_;
  StepCost cost_;
  absl::Duration bound_ = absl::InfiniteDuration();
  Wide wide_ = Wide::kNo;
  Wide last_wide_ = Wide::kPrompts;
  int32_t since_wide_ = kWideEvery;  // steps
};

// True if the call's tenant was promised a time between tokens.
inline bool HasPromise(const Call& call) {
  return call.request.inter_token < absl::InfiniteDuration();
}

}  // namespace sluice

#endif  // SLUICE_ENGINE_STEP_PACER_H_
