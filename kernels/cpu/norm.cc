#include "kernels/cpu/norm.h"

#include <cmath>
#include <cstring>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/norm.cc"
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
    V value = hn::Mul(Load(x + i), scale);
    if (weight != nullptr) value = hn::Mul(value, Load(weight + i));
    Store(value, y + i);
  }
}

// Summed by as many interleaved chains as a vector has lanes.
HWY_INLINE float Mean(const float* x, int64_t n) {
  V sum = Zero();
  for (int64_t i = 0; i < n; i += kLanes) sum = hn::Add(sum, Load(x + i));
  return SumLanes(sum) / static_cast<float>(n);
}

void LayerNormSimd(const float* x, const float* weight, const float* bias, int64_t n, float eps,
                   float* y) {
  const float mean = Mean(x, n);
  float squares = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    y[i] = x[i] - mean;
    squares += y[i] * y[i];
  }
  const V scale = Splat(1.0f / std::sqrt(squares / static_cast<float>(n) + eps));
  for (int64_t i = 0; i < n; i += kLanes) {
    V value = hn::Mul(Load(y + i), scale);
    if (weight != nullptr) value = hn::Mul(value, Load(weight + i));
    if (bias != nullptr) value = hn::Add(value, Load(bias + i));
    Store(value, y + i);
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
  // The memory behind gate and y belongs to the next head.
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
HWY_EXPORT(LayerNormSimd);
HWY_EXPORT(GatedRmsNormSimd);

}  // namespace

void NormRow(const Norm& norm, const float* x, const float* weight, const float* bias, int64_t n,
             float* y) {
  if (norm.kind == NormKind::kLayer) {
    HWY_DYNAMIC_DISPATCH(LayerNormSimd)(x, weight, bias, n, norm.eps, y);
  } else if (norm.kind == NormKind::kRms) {
    HWY_DYNAMIC_DISPATCH(RmsNormSimd)(x, weight, n, norm.eps, y);
  } else if (x != y) {
    std::memcpy(y, x, n * sizeof(float));
  }
}

void GatedRmsNorm(const float* o, const float* weight, const float* gate, int64_t n, float eps,
                  float* y) {
  HWY_DYNAMIC_DISPATCH(GatedRmsNormSimd)(o, weight, gate, n, eps, y);
}

}  // namespace sluice
#endif  // HWY_ONCE
