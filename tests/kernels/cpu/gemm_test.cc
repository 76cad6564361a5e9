// The GEMM's promise: one chain of fused multiply-adds per element, whatever the shape of the call.
#include "kernels/cpu/gemm.h"

#include <cmath>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/pack.h"
#include "tests/kernels/reference_model.h"

namespace sluice {
namespace {

struct Matrix {
  int64_t rows, cols, stride;
  std::vector<float> data;
  Matrix(int64_t r, int64_t c) : rows(r), cols(c), stride(PaddedCols(c)), data(r * stride) {}
  float& at(int64_t r, int64_t c) { return data[r * stride + c]; }
};

Matrix RandomActivations(int64_t rows, int64_t cols, std::mt19937_64* random) {
  Matrix a(rows, cols);
  std::normal_distribution<float> normal;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) a.at(r, c) = normal(*random);
  }
  return a;
}

// acc = fma(a, w, acc) in order of k, on targets that have it.
float Chain(const float* a, const double* w, int64_t k) {
  const std::string simd = SimdName();
  // By compiler, Highway's plain target has either name.
  const bool fused = simd != "SCALAR" && simd != "EMU128";
  float acc = 0.0f;
  for (int64_t i = 0; i < k; ++i) {
    const float x = static_cast<float>(w[i]);
    if (fused) {
      acc = std::fma(a[i], x, acc);
    } else {
      const volatile float product = a[i] * x;
      acc = product + acc;
    }
  }
  return acc;
}

class GemmTest : public testing::TestWithParam<std::tuple<DType, int>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  int threads() const { return std::get<1>(GetParam()); }
};

TEST_P(GemmTest, EveryElementIsTheSameChainForEveryShape) {
  ThreadPool pool(threads());
  std::mt19937_64 random(1);
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{1, 1},   {16, 16},  {17, 3},  {48, 64},
                                                           {97, 50}, {400, 33}, {64, 257}};
  for (const auto& [n, k] : shapes) {
    const TestMatrix w = RandomMatrix(n, k, 1.0, dtype(), &random);
    auto packed = PackRows({w.view()}, &pool);
    ASSERT_TRUE(packed.ok());
    Matrix a = RandomActivations(70, k, &random);
    Matrix expected(70, n);
    for (int64_t r = 0; r < 70; ++r) {
      for (int64_t c = 0; c < n; ++c) expected.at(r, c) = Chain(&a.at(r, 0), &w.values[c * k], k);
    }
    for (int64_t m = 1; m <= 70; ++m) {
      Matrix c(m, n);
      Gemm(&pool, {.a = a.data.data(),
                   .lda = a.stride,
                   .m = m,
                   .w = packed->linear,
                   .c = c.data.data(),
                   .ldc = c.stride});
      ASSERT_EQ(c.data,
                std::vector<float>(expected.data.begin(), expected.data.begin() + m * c.stride))
          << "n " << n << " k " << k << " m " << m;
    }
  }
}

TEST_P(GemmTest, ManyRows) {
  ThreadPool pool(threads());
  std::mt19937_64 random(2);
  const int64_t m = 500, n = 200, k = 40;
  const TestMatrix w = RandomMatrix(n, k, 1.0, dtype(), &random);
  auto packed = PackRows({w.view()}, &pool);
  ASSERT_TRUE(packed.ok());
  Matrix a = RandomActivations(m, k, &random);
  Matrix c(m, n);
  Gemm(&pool, {.a = a.data.data(),
               .lda = a.stride,
               .m = m,
               .w = packed->linear,
               .c = c.data.data(),
               .ldc = c.stride});
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t col = 0; col < n; ++col) {
      ASSERT_EQ(c.at(r, col), Chain(&a.at(r, 0), &w.values[col * k], k));
    }
  }
}

TEST_P(GemmTest, AddsToWhatIsThere) {
  ThreadPool pool(threads());
  std::mt19937_64 random(3);
  const TestMatrix w = RandomMatrix(40, 24, 1.0, dtype(), &random);
  auto packed = PackRows({w.view()}, &pool);
  ASSERT_TRUE(packed.ok());
  Matrix a = RandomActivations(9, 24, &random);
  const Matrix before = RandomActivations(9, 40, &random);
  Matrix c = before;
  Gemm(&pool, {.a = a.data.data(),
               .lda = a.stride,
               .m = 9,
               .w = packed->linear,
               .c = c.data.data(),
               .ldc = c.stride,
               .store = GemmStore::kAdd});
  for (int64_t r = 0; r < 9; ++r) {
    for (int64_t col = 0; col < 40; ++col) {
      EXPECT_EQ(c.at(r, col),
                before.data[r * before.stride + col] + Chain(&a.at(r, 0), &w.values[col * 24], 24));
    }
  }
}

TEST_P(GemmTest, SwiGluPairsGateAndUp) {
  ThreadPool pool(threads());
  std::mt19937_64 random(4);
  for (int64_t intermediate : {1, 8, 21, 24, 100}) {
    const int64_t k = 32;
    const TestMatrix gate = RandomMatrix(intermediate, k, 1.0, dtype(), &random);
    const TestMatrix up = RandomMatrix(intermediate, k, 1.0, dtype(), &random);
    auto packed = PackGateUp(gate.view(), up.view(), &pool);
    ASSERT_TRUE(packed.ok());
    EXPECT_EQ(packed->linear.n, 2 * intermediate);
    Matrix a = RandomActivations(14, k, &random);
    std::vector<float> alone;
    for (int64_t m = 1; m <= 14; ++m) {
      Matrix c(m, intermediate);
      Gemm(&pool, {.a = a.data.data(),
                   .lda = a.stride,
                   .m = m,
                   .w = packed->linear,
                   .c = c.data.data(),
                   .ldc = c.stride,
                   .store = GemmStore::kSwiGlu});
      if (m == 1) alone = c.data;
      ASSERT_EQ(std::vector<float>(c.data.begin(), c.data.begin() + c.stride), alone);
      for (int64_t r = 0; r < m; ++r) {
        for (int64_t col = 0; col < intermediate; ++col) {
          const double g = Chain(&a.at(r, 0), &gate.values[col * k], k);
          const double u = Chain(&a.at(r, 0), &up.values[col * k], k);
          ASSERT_NEAR(c.at(r, col), g / (1 + std::exp(-g)) * u, 1e-6 * (1 + std::abs(g * u)));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, GemmTest,
                         testing::Combine(testing::Values(DType::kF32, DType::kF16, DType::kBF16),
                                          testing::Values(1, 2)));

TEST(PackTest, StacksBlocksAndUnpacksRows) {
  ThreadPool pool(2);
  std::mt19937_64 random(5);
  const TestMatrix a = RandomMatrix(5, 7, 1.0, DType::kBF16, &random);
  const TestMatrix b = RandomMatrix(30, 7, 1.0, DType::kBF16, &random);
  auto packed = PackRows({a.view(), b.view()}, &pool);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(packed->linear.n, 35);
  EXPECT_EQ(packed->linear.k, 7);
  for (int64_t row = 0; row < 35; ++row) {
    float got[7];
    UnpackRow(packed->linear, row, got);
    for (int64_t i = 0; i < 7; ++i) {
      EXPECT_EQ(got[i], row < 5 ? a.values[row * 7 + i] : b.values[(row - 5) * 7 + i]);
    }
  }
}

TEST(PackTest, ConvertsEveryHalf) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t h = static_cast<uint16_t>(bits);
    const int exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    float got;
    ConvertToFloat(&h, DType::kF16, 1, &got);
    if (exponent == 31) {
      EXPECT_EQ(std::isnan(got), mantissa != 0);
      EXPECT_EQ(std::isinf(got), mantissa == 0);
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    ASSERT_EQ(got, (h & 0x8000) != 0 ? -magnitude : magnitude) << bits;
  }
}

}  // namespace
}  // namespace sluice
