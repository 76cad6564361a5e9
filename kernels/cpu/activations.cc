#include "kernels/cpu/activations.h"

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activations.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

void ApplyFeatureMapSimd(FeatureMap map, float scale, int64_t n, float* x) {
  const V factor = Splat(scale);
  for (int64_t i = 0; i < n; i += kLanes) {
    Store(hn::Mul(Feature(D(), map, Load(x + i)), factor), x + i);
  }
}

void GateDecaySimd(const float* bias, bool clamp, float log_gate_min, int64_t n, float* z) {
  const V minimum = Splat(log_gate_min);
  for (int64_t i = 0; i < n; i += kLanes) {
    const V raw = hn::Add(Load(z + i), Load(bias + i));
    V log_gate = hn::Mul(LogSigmoid(D(), raw), Splat(1.0f / 16));
    // Written so that a NaN stays one.
    if (clamp) log_gate = hn::IfThenElse(hn::Lt(log_gate, minimum), minimum, log_gate);
    Store(Exp(D(), log_gate), z + i);
  }
}

void ApplySiluSimd(int64_t n, float* x) {
  for (int64_t i = 0; i < n; i += kLanes) Store(Silu(D(), Load(x + i)), x + i);
}

// z = f(z); the rest of a line goes through a vector of its own.
template <class F>
HWY_INLINE void MapAll(int64_t n, float* z, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(f(Load(z + i)), z + i);
  for (; i < n; ++i) z[i] = hn::GetLane(f(Splat(z[i])));
}

void SoftplusDecaySimd(float rate, int64_t n, float* z) {
  const V factor = Splat(rate);
  MapAll(n, z, [&](V x) { return Exp(D(), hn::Mul(factor, LogSigmoid(D(), hn::Neg(x)))); });
}

void BoundedDecaySimd(float rate, float bound, int64_t n, float* z) {
  const V factor = Splat(rate), lower = Splat(bound);
  MapAll(n, z, [&](V x) { return Exp(D(), hn::Mul(lower, Sigmoid(D(), hn::Mul(factor, x)))); });
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice {
namespace {

HWY_EXPORT(ApplyFeatureMapSimd);
HWY_EXPORT(GateDecaySimd);
HWY_EXPORT(ApplySiluSimd);
HWY_EXPORT(SoftplusDecaySimd);
HWY_EXPORT(BoundedDecaySimd);

}  // namespace

void ApplyFeatureMap(FeatureMap map, float scale, int64_t n, float* x) {
  if (map == FeatureMap::kIdentity && scale == 1.0f) return;
  HWY_DYNAMIC_DISPATCH(ApplyFeatureMapSimd)(map, scale, n, x);
}

void GateDecay(const float* bias, bool clamp, float log_gate_min, int64_t n, float* z) {
  HWY_DYNAMIC_DISPATCH(GateDecaySimd)(bias, clamp, log_gate_min, n, z);
}

void ApplySilu(int64_t n, float* x) { HWY_DYNAMIC_DISPATCH(ApplySiluSimd)(n, x); }

void SoftplusDecay(float rate, int64_t n, float* z) {
  HWY_DYNAMIC_DISPATCH(SoftplusDecaySimd)(rate, n, z);
}

void BoundedDecay(float rate, float bound, int64_t n, float* z) {
  HWY_DYNAMIC_DISPATCH(BoundedDecaySimd)(rate, bound, n, z);
}

}  // namespace sluice
#endif  // HWY_ONCE
