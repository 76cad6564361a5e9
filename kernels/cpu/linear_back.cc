#include "kernels/cpu/linear_back.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/linear_back.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

// Sum of f(x[i]) in an order fixed by n: whole vectors, then the rest one by one.
template <class F>
HWY_INLINE float SumOf(const float* x, int64_t n, F f) {
  V sum = Zero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum = hn::Add(sum, f(Load(x + i)));
  float total = SumLanes(sum);
  for (; i < n; ++i) total += hn::GetLane(f(Splat(x[i])));
  return total;
}

// The norm of y (n), in place; null weight: 1, null bias: 0.
void NormSpanSimd(const Norm& norm, const float* weight, const float* bias, int64_t n, float* y) {
  const auto count = static_cast<float>(n);
  float mean = 0.0f;
  if (norm.kind == NormKind::kLayer) mean = SumOf(y, n, [](V x) { return x; }) / count;
  const V center = Splat(mean);
  const float squares = SumOf(y, n, [&](V x) {
    const V d = hn::Sub(x, center);
    return hn::Mul(d, d);
  });
  const float scale = 1.0f / std::sqrt(squares / count + norm.eps);
  for (int64_t i = 0; i < n; ++i) {
    float value = (y[i] - mean) * scale;
    if (weight != nullptr) value *= weight[i];
    y[i] = bias == nullptr ? value : value + bias[i];
  }
}

// y[i] *= act(gate[i])
void GateSimd(Act act, const float* gate, int64_t n, float* y) {
  const auto gated = [act](V g, V x) {
    switch (act) {
      case Act::kIdentity:
        return hn::Mul(x, g);
      case Act::kSilu:
        return hn::Mul(x, Silu(D(), g));
      case Act::kSigmoid:
        return hn::Mul(x, Sigmoid(D(), g));
      case Act::kSquaredRelu:
        return hn::Mul(x, Activate(D(), act, g));
    }
    return x;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(gated(Load(gate + i), Load(y + i)), y + i);
  for (; i < n; ++i) y[i] = hn::GetLane(gated(Splat(gate[i]), Splat(y[i])));
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice {
namespace {

HWY_EXPORT(NormSpanSimd);
HWY_EXPORT(GateSimd);

// A guard of linear_attn's: the denominator of a query that matches no key is near zero.
constexpr float kNormaliserEps = 1e-10f;

// o as the state gives it -> out: divided, with the skip added.
void Collect(const MixerSpec& spec, const MixerWeights& w, const BackRow& row) {
  for (int64_t head = 0; head < spec.heads(); ++head) {
    const float* o = row.o + head * row.o_stride;
    float* y = row.out + head * spec.dv;
    const float factor =
        spec.normaliser ? 1.0f / (row.den[head * row.den_stride] + kNormaliserEps) : 1.0f;
    for (int64_t i = 0; i < spec.dv; ++i) y[i] = o[i] * factor;
    if (spec.skip == Skip::kNone) continue;
    const float* x = row.skip + head * spec.dv;
    for (int64_t i = 0; i < spec.dv; ++i) {
      const float d = w.skip.data[spec.skip == Skip::kHead ? head : head * spec.dv + i];
      y[i] += d * x[i];
    }
  }
}

void NormOutput(const MixerSpec& spec, const MixerWeights& w, float* y) {
  if (spec.out_norm.kind == NormKind::kNone) return;
  int64_t span = spec.out_dim();
  if (spec.norm_span == NormSpan::kHead) span = spec.dv;
  if (spec.norm_span == NormSpan::kGroup) span = spec.out_dim() / spec.norm_groups;
  for (int64_t at = 0; at < spec.out_dim(); at += span) {
    // One weight for all heads, or one of the whole width.
    const int64_t offset = spec.norm_span == NormSpan::kHead ? 0 : at;
    const float* weight = w.out_norm.size > 0 ? w.out_norm.data + offset : nullptr;
    const float* bias = w.out_norm_bias.size > 0 ? w.out_norm_bias.data + offset : nullptr;
    HWY_DYNAMIC_DISPATCH(NormSpanSimd)(spec.out_norm, weight, bias, span, y + at);
  }
}

}  // namespace

void ProjectOutGate(const MixerSpec& spec, const MixerWeights& w, const float* in,
                    int64_t in_stride, int64_t rows, int64_t gate_stride, float* gate) {
  GemmArgs gemm;
  gemm.a = in + spec.out_gate.offset;
  gemm.lda = in_stride;
  gemm.m = rows;
  gemm.w = w.out_gate;
  gemm.c = gate;
  gemm.ldc = gate_stride;
  if (w.out_gate_bias.size > 0) gemm.bias = w.out_gate_bias.data;
  GemmBlock(gemm, 0, rows, 0, GemmPanels(gemm));
}

void RunLinearBack(const MixerSpec& spec, const MixerWeights& w, const BackRow& row) {
  const float* gate = spec.low_rank_gate ? row.gate : row.in + spec.out_gate.offset;
  Collect(spec, w, row);
  const auto apply_gate = [&] {
    HWY_DYNAMIC_DISPATCH(GateSimd)(spec.out_act, gate, spec.out_dim(), row.out);
  };
  if (spec.gated() && spec.gate_before_norm) apply_gate();
  NormOutput(spec, w, row.out);
  if (spec.gated() && !spec.gate_before_norm) apply_gate();
  std::fill(row.out + spec.out_dim(), row.out + PaddedCols(spec.out_dim()), 0.0f);
}

}  // namespace sluice
#endif  // HWY_ONCE
