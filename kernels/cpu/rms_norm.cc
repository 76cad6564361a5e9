#include "kernels/cpu/rms_norm.h"

#include <cmath>
#include <cstring>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rms_norm.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

// 1 / sqrt(mean(x^2) + eps), the squares summed by 16 interleaved chains.
HWY_INLINE float InverseRms(const float* x, int64_t n, float eps) {
  V sum[kVecs];
  for (int64_t v = 0; v < kVecs; ++v) sum[v] = Zero();
  for (int64_t i = 0; i < n; i += 16) {
    for (int64_t v = 0; v < kVecs; ++v) {
      const V value = Load(x + i + v * kLanes);
      sum[v] = hn::MulAdd(value, value, sum[v]);
    }
  }
  V total = sum[0];
  for (int64_t v = 1; v < kVecs; ++v) total = hn::Add(total, sum[v]);
  return 1.0f / std::sqrt(SumLanes(total) / static_cast<float>(n) + eps);
}

void RmsNormSimd(const float* x, const float* weight, int64_t n, float eps, float* y) {
  const V scale = Splat(InverseRms(x, n, eps));
  for (int64_t i = 0; i < n; i += kLanes) {
    Store(hn::Mul(hn::Mul(Load(x + i), scale), Load(weight + i)), y + i);
  }
}

void GatedRmsNormSimd(const float* o, const float* weight, const float* gate, int64_t n, float eps,
                      float* y) {
  const V scale = Splat(InverseRms(o, n, eps));
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    V value = hn::Mul(Load(o + i), scale);
    if (weight != nullptr) value = hn::Mul(value, Load(weight + i));
    if (gate != nullptr) value = hn::Mul(value, Silu(D(), Load(gate + i)));
    Store(value, y + i);
  }
  if (i == n) return;
  // What follows gate and y in memory belongs to the next head.
  HWY_ALIGN float tail[16] = {};
  if (gate != nullptr) std::memcpy(tail, gate + i, (n - i) * sizeof(float));
  V value = hn::Mul(Load(o + i), scale);
  if (weight != nullptr) value = hn::Mul(value, Load(weight + i));
  if (gate != nullptr) value = hn::Mul(value, Silu(D(), Load(tail)));
  Store(value, tail);
  std::memcpy(y + i, tail, (n - i) * sizeof(float));
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice {
namespace {

HWY_EXPORT(RmsNormSimd);
HWY_EXPORT(GatedRmsNormSimd);

}  // namespace

void RmsNorm(const float* x, const float* weight, int64_t n, float eps, float* y) {
  HWY_DYNAMIC_DISPATCH(RmsNormSimd)(x, weight, n, eps, y);
}

void GatedRmsNorm(const float* o, const float* weight, const float* gate, int64_t n, float eps,
                  float* y) {
  HWY_DYNAMIC_DISPATCH(GatedRmsNormSimd)(o, weight, gate, n, eps, y);
}

}  // namespace sluice
#endif  // HWY_ONCE
