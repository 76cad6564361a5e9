// Every function of mixer_math.h against fp64, over its whole range.
#include "kernels/mixer_math.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace sluice::mixer_math {
namespace {

// Both signs, from tiny to 1e4 in small steps.
std::vector<float> Inputs() {
  std::vector<float> inputs = {0.0f, -0.0f};
  for (double x = 1e-20; x < 1e4; x *= 1.001) {
    inputs.push_back(static_cast<float>(x));
    inputs.push_back(static_cast<float>(-x));
  }
  return inputs;
}

double Ulps(float got, double expected) {
  const double magnitude = std::max(std::abs(expected), double{std::numeric_limits<float>::min()});
  return std::abs(got - expected) / (magnitude * 0x1p-23);
}

void ExpectAccurate(const char* name, double max_ulps, const std::function<float(float)>& function,
                    const std::function<double(double)>& exact) {
  SCOPED_TRACE(name);
  for (const float x : Inputs()) {
    const double expected = exact(x);
    if (std::abs(expected) > std::numeric_limits<float>::max()) {
      EXPECT_EQ(function(x), expected > 0 ? std::numeric_limits<float>::infinity()
                                          : -std::numeric_limits<float>::infinity());
      continue;
    }
    ASSERT_LE(Ulps(function(x), expected), max_ulps) << x;
  }
  EXPECT_TRUE(std::isnan(function(std::numeric_limits<float>::quiet_NaN())));
}

double SigmoidExact(double x) { return 1 / (1 + std::exp(-x)); }
double SoftplusExact(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

TEST(MixerMathTest, ElementaryFunctionsAreAccurate) {
  ExpectAccurate("Exp", 0.51, Exp, [](double x) { return std::exp(x); });
  ExpectAccurate("Softplus", 0.51, Softplus, SoftplusExact);
  ExpectAccurate("LogSigmoid", 0.51, LogSigmoid, [](double x) { return -SoftplusExact(-x); });
  ExpectAccurate("Sigmoid", 0.51, Sigmoid, SigmoidExact);
  ExpectAccurate("Silu", 0.51, Silu, [](double x) { return x * SigmoidExact(x); });
  ExpectAccurate("Tanh", 0.51, Tanh, [](double x) { return std::tanh(x); });
  ExpectAccurate(
      "Log", 0.51, [](float x) { return Log(std::abs(x)); },
      [](double x) { return std::log(std::abs(x)); });
  EXPECT_TRUE(std::isnan(Log(-1.0f)));
}

TEST(MixerMathTest, FeatureMapsAreAccurate) {
  ExpectAccurate("Relu", 0, Relu, [](double x) { return std::max(x, 0.0); });
  ExpectAccurate("SquaredRelu", 1, SquaredRelu, [](double x) { return x > 0 ? x * x : 0.0; });
  ExpectAccurate("LeakyRelu", 1, LeakyRelu, [](double x) { return x < 0 ? double{0.01f} * x : x; });
  ExpectAccurate(
      "elu", 0.51, [](float x) { return ShiftedElu(x, 0); },
      [](double x) { return x < 0 ? std::expm1(x) : x; });
  ExpectAccurate(
      "1 + elu", 0.51, [](float x) { return ShiftedElu(x, 1); },
      [](double x) { return x < 0 ? std::exp(x) : x + 1; });
  ExpectAccurate(
      "2 + elu", 0.51, [](float x) { return ShiftedElu(x, 2); },
      [](double x) { return x < 0 ? 1 + std::exp(x) : x + 2; });
  ExpectAccurate("sine", 0.51, Sine, [](double x) { return std::sin(x); });
}

// Far out in the negative tail 1 + erf is a difference of numbers near 1 in fp64, which is exact to
// 1e-14.
TEST(MixerMathTest, GelusAreAccurate) {
  for (const float x : Inputs()) {
    const double erf = 0.5 * double{x} * std::erfc(-double{x} * 0.70710678118654752);
    ASSERT_NEAR(GeluErf(x), erf, 6.1e-8 * std::abs(erf) + 1e-14 * std::abs(x)) << x;
    const double cubic = double{x} + 0.044715 * std::pow(double{x}, 3);
    const double tanh = x * SigmoidExact(2 * 0.7978845608028654 * cubic);
    ASSERT_NEAR(GeluTanh(x), tanh, 4e-7 * std::min<double>(std::abs(x), std::abs(tanh) + 0.1)) << x;
  }
  EXPECT_TRUE(std::isnan(GeluErf(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(GeluTanh(std::numeric_limits<float>::quiet_NaN())));
}

TEST(MixerMathTest, RotationIsExactAtMillionsOfTokens) {
  for (const int64_t position : {0, 1, 2, 63, 3000, 999'983, 10'000'019}) {
    for (int64_t i = 0; i < 128; ++i) {
      const double frequency = RotaryFrequency(i, 256, 10000);
      const long double angle = static_cast<long double>(frequency) * position;
      const Rotation r = RotationAt(frequency, position);
      ASSERT_NEAR(r.cos, static_cast<double>(std::cos(angle)), 6.1e-8) << position << " " << i;
      ASSERT_NEAR(r.sin, static_cast<double>(std::sin(angle)), 6.1e-8) << position << " " << i;
    }
  }
  EXPECT_EQ(RotationAt(1.0, 0).cos, 1.0f);
  EXPECT_EQ(RotationAt(1.0, 0).sin, 0.0f);
}

// Only the distance between a query and a key matters to their product.
TEST(MixerMathTest, RotatedProductsDependOnTheDistance) {
  const auto product = [](int64_t query, int64_t key) {
    float qa = 0.3f, qb = -1.2f, ka = 0.9f, kb = 0.4f;
    Rotate(RotationAt(0.7, query), &qa, &qb);
    Rotate(RotationAt(0.7, key), &ka, &kb);
    return qa * ka + qb * kb;
  };
  EXPECT_NEAR(product(1'000'005, 1'000'000), product(5, 0), 4e-7);
}

TEST(MixerMathTest, DpfpIsThePapers) {
  const std::vector<float> x = {0.5f, -1.0f, 2.0f};
  const std::vector<float> y = {0.5f, 0.0f, 2.0f, 0.0f, 1.0f, 0.0f};  // [relu(x), relu(-x)]
  for (int64_t shift = 1; shift <= 4; ++shift) {
    for (int64_t i = 0; i < 6; ++i) {
      EXPECT_EQ(Dpfp(x.data(), 3, (shift - 1) * 6 + i), y[i] * y[(i - shift + 6) % 6])
          << shift << " " << i;
    }
  }
}

TEST(MixerMathTest, HedgehogIsASoftmaxOverBothSigns) {
  for (const float size : {1.0f, 60.0f}) {
    const std::vector<float> y = {0.5f * size, -1.0f * size, 0.0f, 0.9f * size};
    std::vector<float> got(8);
    Hedgehog(y.data(), 4, got.data());
    double sum = 0;
    for (const float v : y) sum += std::exp(2.0 * v) + std::exp(-2.0 * v);
    for (int64_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(got[i], std::exp(2.0 * y[i]) / sum, 2e-7);
      EXPECT_NEAR(got[4 + i], std::exp(-2.0 * y[i]) / sum, 2e-7);
    }
  }
}

TEST(MixerMathTest, Norms) {
  std::vector<float> x = {1.0f, 2.0f, 5.0f};
  NormalizeSum(3, x.data());
  EXPECT_FLOAT_EQ(x[2], 5 / 8.0001);
  x = {3.0f, 4.0f};
  NormalizeL2(2, 1e-6f, x.data());
  EXPECT_FLOAT_EQ(x[1], 4 / std::sqrt(25 + 1e-6));
  x = {3.0f, -5.0f};
  NormalizeSumAbs(2, 1e-6f, x.data());
  EXPECT_FLOAT_EQ(x[1], -5.0f / 8);
  x = {0.0f, 0.0f};
  NormalizeSumAbs(2, 1e-6f, x.data());
  EXPECT_EQ(x[0], 0.0f) << "a head that is all zero stays so";
}

TEST(MixerMathTest, GatedDeltaDecay) {
  EXPECT_NEAR(GatedDeltaLogDecay(0.5f, -0.25f, 1.5f), -SoftplusExact(0.25) * std::exp(1.5), 1e-6);
  // A state that hardly decays does so by the right amount.
  EXPECT_NEAR(GatedDeltaLogDecay(0, -20, 0), -std::exp(-20.0), 1e-15);
  EXPECT_EQ(GatedDeltaLogDecay(-200, 0, 3), 0.0f);
}

TEST(MixerMathTest, GlaGateIsClampedAfterTheDivision) {
  EXPECT_NEAR(GlaLogDecay(0.25f, false, 0), -SoftplusExact(-0.25) / 16, 1e-9);
  EXPECT_EQ(GlaLogDecay(-1000, true, -0.5f), -0.5f);
  EXPECT_TRUE(std::isnan(GlaLogDecay(std::numeric_limits<float>::quiet_NaN(), true, -0.5f)));
}

TEST(MixerMathTest, Hgrn2GateLosesNothingAtEitherEnd) {
  for (const float bound : {0.0f, 1e-6f, 0.1f, 0.9f, 0.9999f}) {
    for (const float raw : Inputs()) {
      const KeyGate gate = Hgrn2Gate(raw, bound);
      const double key = (1 - double{bound}) * SigmoidExact(-double{raw});
      ASSERT_LE(Ulps(gate.key, key), 2) << raw << " " << bound;
      const double log_decay = bound == 0 ? -SoftplusExact(-double{raw})
                               : key < 0.5
                                   ? std::log1p(-key)
                                   : std::log(bound + (1 - double{bound}) * SigmoidExact(raw));
      ASSERT_LE(Ulps(gate.log_decay, log_decay), 6) << raw << " " << bound;
      ASSERT_LE(gate.log_decay, 0);
      ASSERT_NEAR(gate.decay, std::exp(log_decay), 1.2e-7 * std::exp(log_decay) + 1e-45);
    }
  }
  EXPECT_TRUE(std::isnan(Hgrn2Gate(std::numeric_limits<float>::quiet_NaN(), 0.5f).log_decay));
}

// The state is an average over time: the weights of all tokens so far sum to 1.
TEST(MixerMathTest, LightNetFollowsTheLogOfASum) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 20);
  double exact = -std::numeric_limits<double>::infinity();
  float log_sum = 0;
  float weight = 0;
  for (int i = 0; i < 3000; ++i) {
    const float k = normal(random);
    const double before = exact;
    exact = std::max(exact, double{k}) + std::log1p(std::exp(-std::abs(exact - k)));
    if (i == 0) exact = k;
    const LightNetGate gate = LightNetStep(k, log_sum, i == 0);
    log_sum = gate.log_sum;
    weight = weight * gate.decay + gate.key;
    // The logarithm is rounded to fp32.
    ASSERT_NEAR(gate.decay, Exp(gate.log_decay),
                1.2e-7 * gate.decay * (1 - gate.log_decay) + 1e-45);
    ASSERT_NEAR(log_sum, exact, 1e-4) << i;
    ASSERT_NEAR(gate.log_decay, i == 0 ? 0 : before - exact, 1e-4);
    ASSERT_NEAR(gate.key, std::exp(k - exact), 1e-4);
    ASSERT_LE(gate.log_decay, 0);
    ASSERT_NEAR(weight, 1, 1e-4);
  }
  const LightNetGate first = LightNetStep(-7.0f, 123.0f, true);
  EXPECT_EQ(first.log_sum, -7.0f);
  EXPECT_EQ(first.key, 1.0f);
  EXPECT_EQ(first.log_decay, 0.0f);
}

TEST(MixerMathTest, Mamba2GateClampsDt) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Mamba2Gate gate = Mamba2Step(0.5f, -0.25f, 1.5f, 0, infinity);
  EXPECT_NEAR(gate.dt, SoftplusExact(0.25), 1e-7);
  EXPECT_NEAR(gate.log_decay, -SoftplusExact(0.25) * std::exp(1.5), 1e-6);
  EXPECT_EQ(Mamba2Step(-50, 0, 1.5f, 0.01f, 0.5f).dt, 0.01f);
  EXPECT_EQ(Mamba2Step(50, 0, 1.5f, 0.01f, 0.5f).dt, 0.5f);
  EXPECT_TRUE(
      std::isnan(Mamba2Step(std::numeric_limits<float>::quiet_NaN(), 0, 1, 0.01f, 0.5f).dt));
}

TEST(MixerMathTest, ConstantDecays) {
  EXPECT_DOUBLE_EQ(RetNetLogDecay(0), std::log(0.96875));
  EXPECT_NEAR(RetNetLogDecay(9), -std::ldexp(1, -14), 1e-8);
  EXPECT_NE(RetNetLogDecay(60), 0);
  EXPECT_DOUBLE_EQ(AlibiSlope(0, 8), 0.5);
  EXPECT_DOUBLE_EQ(AlibiSlope(7, 8), std::ldexp(1, -8));
  // The slopes of six heads: four of a set of four, then the first and third of a set of eight.
  EXPECT_DOUBLE_EQ(AlibiSlope(3, 6), std::ldexp(1, -8));
  EXPECT_DOUBLE_EQ(AlibiSlope(4, 6), 0.5);
  EXPECT_DOUBLE_EQ(AlibiSlope(5, 6), std::ldexp(1, -3));
  EXPECT_DOUBLE_EQ(TransNormerLogDecay(0, 8, 0, 24), -0.5 * (1 + 1e-5));
  EXPECT_NEAR(TransNormerLogDecay(0, 8, 23, 24), -0.5e-5, 1e-15);
}

}  // namespace
}  // namespace sluice::mixer_math
