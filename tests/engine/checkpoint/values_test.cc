#include "engine/checkpoint/values.h"

#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(Values, EveryF16IsConvertedExactly) {
  std::vector<uint16_t> all(1 << 16);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  std::vector<float> out(all.size());
  ConvertToF32(all.data(), DType::kF16, static_cast<int64_t>(all.size()), out.data());
  for (int i = 0; i < 1 << 16; ++i) {
    const int exponent = i >> 10 & 31;
    const int mantissa = i & 1023;
    double expected =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) expected = mantissa == 0 ? INFINITY : NAN;
    if (i & 0x8000) expected = -expected;
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(out[i])) << i;
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(out[i]),
                std::bit_cast<uint32_t>(static_cast<float>(expected)))
          << i;
    }
  }
}

TEST(Values, BF16IsTheUpperHalfOfF32) {
  const uint16_t values[] = {0x3f80, 0xc040, 0x0001, 0x8000};
  float out[4];
  ConvertToF32(values, DType::kBF16, 4, out);
  EXPECT_EQ(out[0], 1.0f);
  EXPECT_EQ(out[1], -3.0f);
  EXPECT_EQ(std::bit_cast<uint32_t>(out[2]), 0x00010000u);
  EXPECT_EQ(std::bit_cast<uint32_t>(out[3]), 0x80000000u);
}

TEST(Values, FindsTheFirstNonFiniteOfEachFormat) {
  const auto check = [](DType dtype, auto fine, std::initializer_list<decltype(fine)> bad_values) {
    for (const int64_t count : {1, 7, 4096, 4097, 10000}) {
      std::vector<decltype(fine)> values(count, fine);
      EXPECT_EQ(FirstNonFinite(values.data(), dtype, count), -1);
      for (const auto bad : bad_values) {
        for (const int64_t at : {int64_t{0}, count / 2, count - 1}) {
          values[at] = bad;
          values[count - 1] = bad;
          EXPECT_EQ(FirstNonFinite(values.data(), dtype, count), at);
          values[at] = fine;
          values[count - 1] = fine;
        }
      }
    }
    EXPECT_EQ(FirstNonFinite(nullptr, dtype, 0), -1);
  };
  // Fine: the largest finite number. Bad: both infinities, a quiet and a signalling NaN.
  check(DType::kF32, uint32_t{0x7f7fffff}, {0x7f800000u, 0xff800000u, 0x7fc00000u, 0xff800001u});
  check(DType::kF16, uint16_t{0xfbff},
        {uint16_t{0x7c00}, uint16_t{0xfc00}, uint16_t{0x7e00}, uint16_t{0xfc01}});
  check(DType::kBF16, uint16_t{0xff7f},
        {uint16_t{0x7f80}, uint16_t{0xff80}, uint16_t{0x7fc0}, uint16_t{0xff81}});
}

// Not a check: loading must stay bound by the disk, and this says how far from that the scan is.
TEST(Values, PrintsTheSpeedOfTheScan) {
  constexpr int64_t kBytes = 32 << 20;
  const std::vector<char> zeros(kBytes);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    double best = std::numeric_limits<double>::infinity();
    for (int round = 0; round < 5; ++round) {
      const auto start = std::chrono::steady_clock::now();
      EXPECT_EQ(FirstNonFinite(zeros.data(), dtype, kBytes / DTypeBytes(dtype)), -1);
      best = std::min(
          best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    std::printf("scan for NaN and infinities, %d-byte values: %.1f GB/s\n",
                static_cast<int>(DTypeBytes(dtype)), kBytes / best / 1e9);
  }
}

}  // namespace
}  // namespace sluice
