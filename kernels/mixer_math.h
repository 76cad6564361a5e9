// The token-local maths of the mixers, written once for both backends: what turns projected columns
// into queries, keys, values and log decays before the recurrence, one element or one head at a
// time. On the host every function is a fixed sequence of IEEE operations without library calls
// that differ between machines, so its bits depend on its arguments alone; a NaN gives a NaN. On a
// CUDA device the elementary functions are CUDA's own.
#ifndef SLUICE_KERNELS_MIXER_MATH_H_
#define SLUICE_KERNELS_MIXER_MATH_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/mixer_spec.h"

#ifdef __CUDACC__
#define SLUICE_MIXER_MATH __host__ __device__ inline
#else
#define SLUICE_MIXER_MATH inline
#endif

namespace sluice::mixer_math {

// ---- Elementary functions, within 1 ulp of fp32 ----

namespace internal {

// The nearest integer to x, |x| below 2^51.
SLUICE_MIXER_MATH double Nearest(double x) {
  constexpr double kShift = 0x1.8p52;
  return (x + kShift) - kShift;
}

inline double PowerOfTwo(int exponent) {  // exponent in [-1022, 1023]
  const uint64_t bits = static_cast<uint64_t>(exponent + 1023) << 52;
  double value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// e^x in fp64 with a relative error below 1e-14; x in [-700, 700]. x = n ln 2 + r, then Taylor's
// series in r.
inline double ExpDouble(double x) {
  const double n = Nearest(x * 1.4426950408889634);
  const double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
  double p = 1.0 / 39916800;
  constexpr double kFactorials[] = {3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1};
  for (const double factorial : kFactorials) p = p * r + 1.0 / factorial;
  return p * PowerOfTwo(static_cast<int>(n));
}

// 2 atanh(s) for |s| <= 1/3, with a relative error below 1e-13.
inline double TwoAtanh(double s) {
  const double z = s * s;
  double p = 0.0;
  for (int i = 27; i >= 3; i -= 2) p = (p + 1.0 / i) * z;
  return 2 * s * (1 + p);
}

// log of a positive normal number. x = 2^n m with m in [sqrt(1/2), sqrt(2)).
inline double LogDouble(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  int n = static_cast<int>(bits >> 52) - 1022;
  bits = (bits & 0xFFFFFFFFFFFFF) | (uint64_t{1022} << 52);
  double m;
  std::memcpy(&m, &bits, sizeof(m));
  if (m < 0.70710678118654752) {
    m *= 2;
    --n;
  }
  return TwoAtanh((m - 1) / (m + 1)) + n * 0.69314718055994531;
}

// erf by the series of positive terms 2/sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (2n+1)!!.
inline double ErfDouble(double x) {
  if (!(std::abs(x) < 6)) return x != x ? x : (x < 0 ? -1.0 : 1.0);
  double term = x;
  double sum = x;
  for (int n = 1; n < 200; ++n) {
    term *= 2 * x * x / (2 * n + 1);
    sum += term;
  }
  return 1.1283791670955126 * ExpDouble(-x * x) * sum;
}

}  // namespace internal

// e^x: 0 below -104, infinity above 89.
SLUICE_MIXER_MATH float Exp(float x) {
#ifdef __CUDA_ARCH__
  return expf(x);
#else
  if (!(x > -104)) return x != x ? x : 0.0f;
  if (x > 89) return std::numeric_limits<float>::infinity();
  return static_cast<float>(internal::ExpDouble(x));
#endif
}

// log x for x >= 0; that of 0 is -infinity.
SLUICE_MIXER_MATH float Log(float x) {
#ifdef __CUDA_ARCH__
  return logf(x);
#else
  if (!(x > 0)) {
    return x == 0 ? -std::numeric_limits<float>::infinity()
                  : std::numeric_limits<float>::quiet_NaN();
  }
  return x > std::numeric_limits<float>::max() ? x : static_cast<float>(internal::LogDouble(x));
#endif
}

// log(1 + e^x)
SLUICE_MIXER_MATH float Softplus(float x) {
#ifdef __CUDA_ARCH__
  return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
#else
  if (x != x) return x;
  if (x < -104) return 0.0f;
  if (x > 40) return x;
  const double y = internal::ExpDouble(-std::abs(x));  // in (0, 1]
  return static_cast<float>((x > 0 ? x : 0.0f) + internal::TwoAtanh(y / (2 + y)));
#endif
}

// log(sigmoid(x))
SLUICE_MIXER_MATH float LogSigmoid(float x) { return -Softplus(-x); }

SLUICE_MIXER_MATH float Sigmoid(float x) {
#ifdef __CUDA_ARCH__
  return 1.0f / (1.0f + expf(-x));
#else
  if (!(x > -104)) return x != x ? x : 0.0f;
  if (x > 40) return 1.0f;
  return static_cast<float>(1 / (1 + internal::ExpDouble(-x)));
#endif
}

SLUICE_MIXER_MATH float Silu(float x) {
#ifdef __CUDA_ARCH__
  return x / (1.0f + expf(-x));
#else
  if (!(x > -200)) return x != x ? x : -0.0f;
  if (x > 40) return x;
  return static_cast<float>(x / (1 + internal::ExpDouble(-x)));
#endif
}

SLUICE_MIXER_MATH float Tanh(float x) {
#ifdef __CUDA_ARCH__
  return tanhf(x);
#else
  const float size = std::abs(x);
  if (!(size < 20)) return x != x ? x : (x < 0 ? -1.0f : 1.0f);
  if (size < 1e-3f) return static_cast<float>(x - double{x} * x * x / 3);
  const double e = internal::ExpDouble(-2.0 * size);
  const auto result = static_cast<float>((1 - e) / (1 + e));
  return x < 0 ? -result : result;
#endif
}

// The two below are exact also where x is large: `angle` is reduced in fp64.
struct Rotation {
  float cos = 1.0f;
  float sin = 0.0f;
};

// cos and sin of frequency * position radians, exact to fp32 up to |frequency| * position of 1e8.
SLUICE_MIXER_MATH Rotation RotationAt(double frequency, int64_t position) {
  const double angle = frequency * static_cast<double>(position);
  // angle = n pi/2 + r with |r| <= pi/4; pi/2 in two parts.
  const double n = internal::Nearest(angle * 0.63661977236758134);
  const double r = (angle - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;
  const double z = r * r;
  const double s =
      r * (1 + z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 +
                                                     z * (1.0 / 362880 - z * (1.0 / 39916800))))));
  const double c =
      1 + z * (-1.0 / 2 +
               z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 +
                                                                         z * (1.0 / 479001600))))));
  // An angle that is not finite gives NaN by way of r, whatever the quadrant; its n is no integer.
  const bool is_integer = n > -9e18 && n < 9e18;
  const int64_t quadrant = is_integer ? static_cast<int64_t>(n) & 3 : 0;
  const double cosine = quadrant % 2 == 0 ? c : s;
  const double sine = quadrant % 2 == 0 ? s : c;
  Rotation rotation;
  rotation.cos = static_cast<float>(quadrant == 1 || quadrant == 2 ? -cosine : cosine);
  rotation.sin = static_cast<float>(quadrant >= 2 ? -sine : sine);
  return rotation;
}

SLUICE_MIXER_MATH float Sine(float x) { return RotationAt(x, 1).sin; }

// ---- Feature maps of one element ----

// Written so that a NaN stays one.
SLUICE_MIXER_MATH float Relu(float x) { return x < 0 ? 0.0f : x; }
SLUICE_MIXER_MATH float SquaredRelu(float x) { return Relu(x) * Relu(x); }
SLUICE_MIXER_MATH float LeakyRelu(float x) { return x < 0 ? 0.01f * x : x; }
// `shift` + elu(x): with 1 the map of "Transformers are RNNs" (arXiv 2006.16236), which is e^x
// below zero and loses no digits there.
SLUICE_MIXER_MATH float ShiftedElu(float x, float shift) {
  if (!(x < 0)) return x + shift;
  if (shift == 1.0f) return Exp(x);
#ifdef __CUDA_ARCH__
  return shift + expm1f(x);
#else
  if (x < -104) return shift - 1;
  // Below 1e-3 the series is better than a difference.
  const double expm1 =
      x > -1e-3f ? x * (1 + x * (0.5 + x * (1.0 / 6 + x / 24.0))) : internal::ExpDouble(x) - 1;
  return static_cast<float>(shift + expm1);
#endif
}
SLUICE_MIXER_MATH float GeluErf(float x) {
#ifdef __CUDA_ARCH__
  return 0.5f * x * (1.0f + erff(x * 0.70710678f));
#else
  return static_cast<float>(0.5 * x * (1 + internal::ErfDouble(x * 0.70710678118654752)));
#endif
}
// x (1 + tanh(u)) / 2 = x sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3)
SLUICE_MIXER_MATH float GeluTanh(float x) {
  return x * Sigmoid(2 * 0.79788456f * (x + 0.044715f * x * x * x));
}

// The maps that take one element; `x` itself for those that take a head.
SLUICE_MIXER_MATH float MapElement(FeatureMap map, float x) {
  switch (map) {
    case FeatureMap::kRelu:
    case FeatureMap::kT2r:
      return Relu(x);
    case FeatureMap::kSigmoid:
      return Sigmoid(x);
    case FeatureMap::kLogSigmoid:
      return LogSigmoid(x);
    case FeatureMap::kSilu:
      return Silu(x);
    case FeatureMap::kSquaredRelu:
      return SquaredRelu(x);
    case FeatureMap::kGeluTanh:
      return GeluTanh(x);
    case FeatureMap::kGelu:
      return GeluErf(x);
    case FeatureMap::kTanh:
      return Tanh(x);
    case FeatureMap::kElu:
      return ShiftedElu(x, 0);
    case FeatureMap::kEluPlusOne:
      return ShiftedElu(x, 1);
    case FeatureMap::kEluPlusTwo:
      return ShiftedElu(x, 2);
    case FeatureMap::kLeakyRelu:
      return LeakyRelu(x);
    case FeatureMap::kSine:
      return Sine(x);
    case FeatureMap::kIdentity:
    case FeatureMap::kProduct:
    case FeatureMap::kHedgehog:
    case FeatureMap::kDpfp:
      break;
  }
  return x;
}

// ---- Feature maps of one head ----

// Element i of the deterministic parameter-free projection of x (n), which is (8 n) wide (arXiv
// 2102.11174, nu = 4): y = [relu(x), relu(-x)], then y times y rolled by 1, 2, 3 and 4.
SLUICE_MIXER_MATH float Dpfp(const float* x, int64_t n, int64_t i) {
  const int64_t width = 2 * n;
  const int64_t at = i % width;
  const int64_t other = (at + 4 * width - (i / width + 1)) % width;
  const float a = at < n ? Relu(x[at]) : Relu(-x[at - n]);
  const float b = other < n ? Relu(x[other]) : Relu(-x[other - n]);
  return a * b;
}

// Hedgehog (arXiv 2402.04347): the softmax over [2 y, -2 y], (2 n) wide, of a head's y = W x + b
// (n). `out` may not be `y`.
SLUICE_MIXER_MATH void Hedgehog(const float* y, int64_t n, float* out) {
  float largest = 0.0f;
  for (int64_t i = 0; i < n; ++i)
    largest = y[i] > largest || -y[i] > largest ? fabsf(y[i]) : largest;
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    out[i] = Exp(2 * (y[i] - largest));
    out[n + i] = Exp(2 * (-y[i] - largest));
    sum += out[i];
    sum += out[n + i];
  }
  const auto inverse = static_cast<float>(1 / sum);
  for (int64_t i = 0; i < 2 * n; ++i) out[i] *= inverse;
}

// x / (sum x + 1e-4), linear_attn's norm_q and norm_k.
SLUICE_MIXER_MATH void NormalizeSum(int64_t n, float* x) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  const auto inverse = static_cast<float>(1 / (sum + 1e-4));
  for (int64_t i = 0; i < n; ++i) x[i] *= inverse;
}

// x / sqrt(sum x^2 + eps)
SLUICE_MIXER_MATH void NormalizeL2(int64_t n, float eps, float* x) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += double{x[i]} * x[i];
  const auto inverse = static_cast<float>(1 / sqrt(sum + eps));
  for (int64_t i = 0; i < n; ++i) x[i] *= inverse;
}

// x / max(sum |x|, eps)
SLUICE_MIXER_MATH void NormalizeSumAbs(int64_t n, float eps, float* x) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += fabsf(x[i]);
  const auto inverse = static_cast<float>(1 / (sum < eps ? double{eps} : sum));
  for (int64_t i = 0; i < n; ++i) x[i] *= inverse;
}

// x / sqrt(mean x^2 + eps) * weight
SLUICE_MIXER_MATH void NormalizeRms(int64_t n, float eps, const float* weight, float* x) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += double{x[i]} * x[i];
  const auto inverse = static_cast<float>(1 / sqrt(sum / static_cast<double>(n) + eps));
  for (int64_t i = 0; i < n; ++i) x[i] *= inverse * weight[i];
}

// ---- Positions ----

// Radians a token that pair `i` of a rotated head of `width` channels turns by.
inline double RotaryFrequency(int64_t i, int64_t width, double theta) {
  const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(width);
  return internal::ExpDouble(exponent * internal::LogDouble(theta));
}

// Turns the pair (a, b).
SLUICE_MIXER_MATH void Rotate(Rotation r, float* a, float* b) {
  const float x = *a, y = *b;
  *a = x * r.cos - y * r.sin;
  *b = x * r.sin + y * r.cos;
}

// ---- Gates: from a raw column to the log of a decay ----

// GLA (arXiv 2312.06635, section 4.4): logsigmoid(x) / 16, where clamped never below `minimum`.
SLUICE_MIXER_MATH float GlaLogDecay(float raw, bool clamp, float minimum) {
  const float log_decay = LogSigmoid(raw) / 16;
  return clamp && log_decay < minimum ? minimum : log_decay;
}

struct KeyGate {
  float log_decay = 0.0f;
  float decay = 1.0f;  // e^log_decay
  float key = 0.0f;
};

// HGRN2 (arXiv 2404.07904): forget f = bound + (1 - bound) sigmoid(raw), key 1 - f without
// cancellation. `bound` in [0, 1].
SLUICE_MIXER_MATH KeyGate Hgrn2Gate(float raw, float bound) {
  KeyGate gate;
  gate.key = (1 - bound) * Sigmoid(-raw);
  // If f is near one, its logarithm comes from the key, and without a bound from the raw value.
#ifdef __CUDA_ARCH__
  gate.decay = bound + (1 - bound) * Sigmoid(raw);
  if (bound <= 0) {
    gate.log_decay = LogSigmoid(raw);
  } else {
    gate.log_decay = gate.key > 0.5f ? logf(gate.decay) : log1pf(-gate.key);
  }
#else
  const double forget = bound + (1 - double{bound}) * Sigmoid(raw);
  gate.decay = static_cast<float>(forget);
  if (bound <= 0) {
    gate.log_decay = LogSigmoid(raw);
  } else {
    gate.log_decay =
        static_cast<float>(gate.key > 0.5f ? internal::LogDouble(forget)
                                           : internal::TwoAtanh(-gate.key / (2.0 - gate.key)));
  }
#endif
  return gate;
}

// LightNet (arXiv 2405.21022): z' = log(e^z + e^k), the state decays by e^(z - z') and takes the
// key e^(k - z'). Of a sequence's first token `fresh` is set and z is not read; its decay, of an
// empty state, is 1.
struct LightNetGate {
  float log_decay = 0.0f;
  float decay = 1.0f;  // e^log_decay
  float key = 1.0f;
  float log_sum = 0.0f;  // z'
};
SLUICE_MIXER_MATH LightNetGate LightNetStep(float k, float log_sum, bool fresh) {
  LightNetGate gate;
  if (fresh) {
    gate.log_sum = k;
    return gate;
  }
  const float difference = k - log_sum;
  gate.log_decay = -Softplus(difference);
  gate.key = Sigmoid(difference);
  gate.decay = Sigmoid(-difference);
  gate.log_sum = log_sum - gate.log_decay;
  return gate;
}

// Mamba-2 (arXiv 2405.21060): dt = clamp(softplus(raw + bias), least, most), decay e^(-dt e^a_log).
struct Mamba2Gate {
  float dt = 0.0f;
  float log_decay = 0.0f;
};
SLUICE_MIXER_MATH Mamba2Gate Mamba2Step(float raw, float bias, float a_log, float least,
                                        float most) {
  Mamba2Gate gate;
  gate.dt = Softplus(raw + bias);
  if (gate.dt < least) gate.dt = least;
  if (gate.dt > most) gate.dt = most;
  gate.log_decay = -gate.dt * Exp(a_log);
  return gate;
}

// Gated DeltaNet (arXiv 2412.06464): -e^a_log softplus(raw + bias).
SLUICE_MIXER_MATH float GatedDeltaLogDecay(float raw, float bias, float a_log) {
  return -Exp(a_log) * Softplus(raw + bias);
}

// ---- Constant decays, computed once when a model is loaded ----

// RetNet (arXiv 2307.08621): log(1 - 2^(-5 - head)).
inline double RetNetLogDecay(int64_t head) {
  return std::log1p(-std::ldexp(1.0, static_cast<int>(-5 - head)));
}

// The slope of head `head` of `heads` (ALiBi, arXiv 2108.12409): powers of 2^(-8/heads); where
// `heads` is no power of two, those of the next lower one and then every other of the next higher.
inline double AlibiSlope(int64_t head, int64_t heads) {
  int64_t low = 1;
  while (2 * low <= heads) low *= 2;
  if (head < low) return std::exp2(-8.0 * static_cast<double>(head + 1) / static_cast<double>(low));
  const int64_t index = 2 * (head - low);
  return std::exp2(-8.0 * static_cast<double>(index + 1) / static_cast<double>(2 * low));
}

// TransNormerLLM (arXiv 2307.14995): -slope (1 - layer / (layers - 1) + 1e-5); layers >= 2.
inline double TransNormerLogDecay(int64_t head, int64_t heads, int64_t layer, int64_t layers) {
  return -AlibiSlope(head, heads) *
         (1 - static_cast<double>(layer) / static_cast<double>(layers - 1) + 1e-5);
}

}  // namespace sluice::mixer_math

#undef SLUICE_MIXER_MATH
#endif  // SLUICE_KERNELS_MIXER_MATH_H_
