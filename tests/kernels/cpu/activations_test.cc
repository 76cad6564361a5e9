// Accuracy of the elementwise functions against fp64, over their whole range.
#include "kernels/cpu/activations.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/norm.h"

namespace sluice {
namespace {

// Both signs, from tiny to 1e4 in small steps; a multiple of 16 of them.
std::vector<float> Inputs() {
  std::vector<float> inputs = {0.0f, -0.0f};
  for (double x = 1e-20; x < 1e4; x *= 1.0007) {
    inputs.push_back(static_cast<float>(x));
    inputs.push_back(static_cast<float>(-x));
  }
  inputs.resize((inputs.size() + 15) / 16 * 16, 1.0f);
  return inputs;
}

double Ulps(float got, double expected) {
  const double magnitude = std::max(std::abs(expected), double{std::numeric_limits<float>::min()});
  return std::abs(got - expected) / (magnitude * 0x1p-23);
}

void ExpectAccurate(FeatureMap map, double max_ulps, const std::function<double(double)>& exact) {
  const std::vector<float> inputs = Inputs();
  std::vector<float> got = inputs;
  ApplyFeatureMap(map, 1.0f, static_cast<int64_t>(got.size()), got.data());
  for (size_t i = 0; i < got.size(); ++i) {
    const double expected = exact(inputs[i]);
    // Zero is as good as 1e-36 if the exponential leaves fp32's range.
    if (got[i] == 0.0f && std::abs(expected) < 1e-36) continue;
    ASSERT_LE(Ulps(got[i], expected), max_ulps) << inputs[i];
  }
}

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double LogSigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

TEST(ActivationsTest, FeatureMapsAreAccurate) {
  ExpectAccurate(FeatureMap::kIdentity, 0, [](double x) { return x; });
  ExpectAccurate(FeatureMap::kRelu, 0, [](double x) { return std::max(x, 0.0); });
  ExpectAccurate(FeatureMap::kSigmoid, 3, Sigmoid);
  ExpectAccurate(FeatureMap::kSilu, 3, [](double x) { return x * Sigmoid(x); });
  ExpectAccurate(FeatureMap::kLogSigmoid, 3, LogSigmoid);
  ExpectAccurate(FeatureMap::kSquaredRelu, 1, [](double x) { return x > 0 ? x * x : 0.0; });
}

// Far out in the negative tail the argument of the exponential is rounded; there the result is next
// to nothing.
TEST(ActivationsTest, GeluIsAccurate) {
  const std::vector<float> inputs = Inputs();
  std::vector<float> got = inputs;
  ApplyFeatureMap(FeatureMap::kGeluTanh, 1.0f, static_cast<int64_t>(got.size()), got.data());
  for (size_t i = 0; i < got.size(); ++i) {
    const double x = inputs[i];
    const double exact = x * Sigmoid(2 * 0.79788456 * (x + 0.044715 * x * x * x));
    ASSERT_NEAR(got[i], exact, 4e-7 * std::min(std::abs(x), std::abs(exact) + 1e-1)) << x;
  }
}

TEST(ActivationsTest, ScalesAfterTheFeatureMap) {
  std::vector<float> x(16, -3.0f);
  x[1] = 5.0f;
  ApplyFeatureMap(FeatureMap::kRelu, 0.5f, 16, x.data());
  EXPECT_EQ(x[0], 0.0f);
  EXPECT_EQ(x[1], 2.5f);
}

TEST(ActivationsTest, GateDecayIsAccurateAndNeverAboveOne) {
  const std::vector<float> inputs = Inputs();
  const std::vector<float> bias(inputs.size(), 0.25f);
  std::vector<float> got = inputs;
  GateDecay(bias.data(), false, 0.0f, static_cast<int64_t>(got.size()), got.data());
  for (size_t i = 0; i < got.size(); ++i) {
    const float z = inputs[i] + bias[i];
    ASSERT_LE(got[i], 1.0f);
    ASSERT_GE(got[i], 0.0f);
    // The exponent is rounded to fp32 first: up to half an ulp of up to 87.
    ASSERT_NEAR(got[i], std::exp(LogSigmoid(z) / 16),
                1e-37 + 2e-7 * got[i] * (1 + std::abs(z) / 16));
  }
}

TEST(ActivationsTest, GateDecayClampsAfterTheDivision) {
  std::vector<float> z(16, -1000.0f);
  const std::vector<float> bias(16, 0.0f);
  GateDecay(bias.data(), true, -0.5f, 16, z.data());
  EXPECT_FLOAT_EQ(z[0], std::exp(-0.5f));
}

TEST(ActivationsTest, NaNStaysNaN) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (FeatureMap map :
       {FeatureMap::kIdentity, FeatureMap::kRelu, FeatureMap::kSigmoid, FeatureMap::kLogSigmoid,
        FeatureMap::kSilu, FeatureMap::kSquaredRelu, FeatureMap::kGeluTanh}) {
    std::vector<float> x(16, nan);
    ApplyFeatureMap(map, 1.0f, 16, x.data());
    EXPECT_TRUE(std::isnan(x[0])) << static_cast<int>(map);
  }
  std::vector<float> z(16, nan);
  const std::vector<float> bias(16, 0.0f);
  GateDecay(bias.data(), true, -0.5f, 16, z.data());
  EXPECT_TRUE(std::isnan(z[0]));
}

// Both gates of KDA, for heads of any width; what lies past the end is left alone.
TEST(ActivationsTest, KdaDecaysAreAccurate) {
  const std::vector<float> inputs = Inputs();
  const auto n = static_cast<int64_t>(inputs.size()) - 3;
  for (const float rate : {0.02f, 1.0f, 16.0f}) {
    std::vector<float> soft = inputs, bounded = inputs;
    SoftplusDecay(rate, n, soft.data());
    BoundedDecay(rate, -5.0f, n, bounded.data());
    for (int64_t i = 0; i < n; ++i) {
      const double x = inputs[i];
      // The exponent is rounded to fp32 before e^ is taken.
      const double g = double{rate} * LogSigmoid(-x);
      ASSERT_NEAR(soft[i], std::exp(g), (3e-7 - 3e-7 * g) * std::exp(g) + 1e-37) << x;
      ASSERT_LE(soft[i], 1.0f);
      ASSERT_NEAR(bounded[i], std::exp(-5 * Sigmoid(double{rate} * x)), 2e-6) << x;
      ASSERT_LE(bounded[i], 1.0f);
    }
    for (int64_t i = n; i < n + 3; ++i) {
      EXPECT_EQ(soft[i], inputs[i]);
      EXPECT_EQ(bounded[i], inputs[i]);
    }
  }
  // An element's bits do not depend on where it stands.
  std::vector<float> line(17, 0.3f);
  SoftplusDecay(2.0f, 17, line.data());
  EXPECT_EQ(line[0], line[16]);
  float nan = std::numeric_limits<float>::quiet_NaN();
  SoftplusDecay(2.0f, 1, &nan);
  EXPECT_TRUE(std::isnan(nan));
}

TEST(RmsNormTest, MatchesFp64) {
  for (int64_t n : {1, 12, 16, 24, 100, 384, 1000}) {
    const int64_t padded = (n + 15) / 16 * 16;
    std::vector<float> x(padded), weight(padded), y(padded), gate(n), gated(n + 4, 7.0f);
    double sum = 0.0;
    for (int64_t i = 0; i < n; ++i) {
      x[i] = std::sin(static_cast<float>(i * 3 + 1));
      weight[i] = 1.0f + 0.1f * std::cos(static_cast<float>(i));
      gate[i] = 4 * std::sin(static_cast<float>(i));
      sum += double{x[i]} * x[i];
    }
    const double scale = 1 / std::sqrt(sum / n + 1e-6);
    NormRow({.eps = 1e-6f}, x.data(), weight.data(), nullptr, n, y.data());
    GatedRmsNorm(x.data(), nullptr, gate.data(), n, 1e-6f, gated.data());
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(y[i], x[i] * scale * weight[i], 1e-6);
      EXPECT_NEAR(gated[i], x[i] * scale * gate[i] * Sigmoid(gate[i]), 4e-6);
    }
    for (int64_t i = n; i < n + 4; ++i) EXPECT_EQ(gated[i], 7.0f) << "wrote past its end";
  }
}

}  // namespace
}  // namespace sluice
