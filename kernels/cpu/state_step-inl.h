// Code that the recurrences of one token share: the decay of a state, and dot products. Included
// once per instruction set.
#if defined(SLUICE_KERNELS_CPU_STATE_STEP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_KERNELS_CPU_STATE_STEP_INL_H_
#undef SLUICE_KERNELS_CPU_STATE_STEP_INL_H_
#else
#define SLUICE_KERNELS_CPU_STATE_STEP_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/mixer_math.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

// The decay of a state. Near 1 a decay has lost most digits of its distance from 1, by which a
// slowly decaying state differs from one that never does; S + S (e^log_decay - 1) keeps them. Far
// from 1 the product itself is exact.
struct StepDecay {
  explicit StepDecay(float log_decay)
      : near_one(log_decay > -0.25f),
        factor(near_one ? mixer_math::ShiftedElu(log_decay, 0) : mixer_math::Exp(log_decay)) {}

  bool near_one;
  float factor;
};

template <bool kNearOne>
HWY_INLINE V Decayed(V s, V factor) {
  return kNearOne ? hn::MulAdd(s, factor, s) : hn::Mul(s, factor);
}

// x y^T by a whole vector of interleaved chains; n may be any number.
HWY_INLINE float Dot(const float* x, const float* y, int64_t n) {
  V sum = Zero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum = hn::MulAdd(Load(x + i), Load(y + i), sum);
  float total = SumLanes(sum);
  for (; i < n; ++i) total += x[i] * y[i];
  return total;
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#endif  // SLUICE_KERNELS_CPU_STATE_STEP_INL_H_
