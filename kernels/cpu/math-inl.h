// Elementwise functions on vectors, within 2 ulp in fp32. A NaN gives a NaN. Included once per
// instruction set.
#if defined(SLUICE_KERNELS_CPU_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_KERNELS_CPU_MATH_INL_H_
#undef SLUICE_KERNELS_CPU_MATH_INL_H_
#else
#define SLUICE_KERNELS_CPU_MATH_INL_H_
#endif

#include "hwy/highway.h"
#include "kernels/mixer_spec.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// e^x: x = n ln 2 + r with |r| <= ln 2 / 2, then a polynomial in r times 2^n. 0 below -87.3,
// infinity above 88.3.
template <class DF, class VF = hn::Vec<DF>>
HWY_INLINE VF Exp(DF d, VF x) {
  const hn::RebindToSigned<DF> di;
  const VF low = hn::Set(d, -87.33654f), high = hn::Set(d, 88.3f);
  const VF bounded = hn::Min(hn::Max(x, low), high);
  const VF n = hn::Round(hn::Mul(bounded, hn::Set(d, 1.44269504f)));
  VF r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), bounded);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  VF p = hn::Set(d, 1.9875691500e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(hn::Mul(p, r), r, r), hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127)));
  VF y = hn::Mul(p, hn::BitCast(d, exponent));
  y = hn::IfThenElse(hn::Lt(x, low), hn::Zero(d), y);
  y = hn::IfThenElse(hn::Gt(x, high), hn::Inf(d), y);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// log(1 + y) for y in [0, 1], by 2 atanh(s) with s = y / (2 + y), |s| <= 1/3.
template <class DF, class VF = hn::Vec<DF>>
HWY_INLINE VF Log1pUnit(DF d, VF y) {
  const VF s = hn::Div(y, hn::Add(y, hn::Set(d, 2.0f)));
  const VF z = hn::Mul(s, s);
  VF p = hn::Set(d, 2.0f / 15);
  p = hn::MulAdd(p, z, hn::Set(d, 2.0f / 13));
  p = hn::MulAdd(p, z, hn::Set(d, 2.0f / 11));
  p = hn::MulAdd(p, z, hn::Set(d, 2.0f / 9));
  p = hn::MulAdd(p, z, hn::Set(d, 2.0f / 7));
  p = hn::MulAdd(p, z, hn::Set(d, 2.0f / 5));
  p = hn::MulAdd(p, z, hn::Set(d, 2.0f / 3));
  return hn::MulAdd(hn::Mul(p, z), s, hn::Add(s, s));
}

template <class DF, class VF = hn::Vec<DF>>
HWY_INLINE VF Sigmoid(DF d, VF x) {
  return hn::Div(hn::Set(d, 1.0f), hn::Add(hn::Set(d, 1.0f), Exp(d, hn::Neg(x))));
}

template <class DF, class VF = hn::Vec<DF>>
HWY_INLINE VF Silu(DF d, VF x) {
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), Exp(d, hn::Neg(x))));
}

// log(sigmoid(x)) = min(x, 0) - log(1 + e^-|x|)
template <class DF, class VF = hn::Vec<DF>>
HWY_INLINE VF LogSigmoid(DF d, VF x) {
  const VF tail = Log1pUnit(d, Exp(d, hn::Neg(hn::Abs(x))));
  return hn::Sub(hn::Min(x, hn::Zero(d)), tail);
}

// x (1 + tanh(u)) / 2 = x sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3)
template <class DF, class VF = hn::Vec<DF>>
HWY_INLINE VF GeluTanh(DF d, VF x) {
  const VF cubic = hn::MulAdd(hn::Mul(hn::Set(d, 0.044715f), hn::Mul(x, x)), x, x);
  return hn::Mul(x, Sigmoid(d, hn::Mul(hn::Set(d, 2 * 0.79788456f), cubic)));
}

template <class DF, class VF = hn::Vec<DF>>
HWY_INLINE VF Feature(DF d, FeatureMap map, VF x) {
  switch (map) {
    case FeatureMap::kIdentity:
      return x;
    case FeatureMap::kRelu:
      return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);
    case FeatureMap::kSigmoid:
      return Sigmoid(d, x);
    case FeatureMap::kLogSigmoid:
      return LogSigmoid(d, x);
    case FeatureMap::kSilu:
      return Silu(d, x);
    case FeatureMap::kSquaredRelu: {
      const VF positive = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);
      return hn::Mul(positive, positive);
    }
    case FeatureMap::kGeluTanh:
      return GeluTanh(d, x);
    default:  // refused by CheckSpec
      return x;
  }
}

template <class DF, class VF = hn::Vec<DF>>
HWY_INLINE VF Activate(DF d, Act act, VF x) {
  switch (act) {
    case Act::kIdentity:
      return x;
    case Act::kSilu:
      return Silu(d, x);
    case Act::kSigmoid:
      return Sigmoid(d, x);
    case Act::kSquaredRelu: {
      // Written so that a NaN stays one.
      const VF positive = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);
      return hn::Mul(positive, positive);
    }
  }
  return x;
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#endif  // SLUICE_KERNELS_CPU_MATH_INL_H_
