#include "kernels/philox.h"

#include "gtest/gtest.h"

namespace sluice {
namespace {

void ExpectPhilox(Philox4x32 counter, uint32_t key0, uint32_t key1, Philox4x32 expected) {
  const Philox4x32 got = Philox(counter, key0, key1);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(got.x[i], expected.x[i]) << i;
}

// The known answers that the authors publish with Random123 (kat_vectors, philox4x32 10).
TEST(PhiloxTest, GivesThePublishedNumbers) {
  ExpectPhilox({{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}});
  ExpectPhilox({{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}, 0xffffffff, 0xffffffff,
               {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}});
  ExpectPhilox({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0,
               {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
}

TEST(PhiloxTest, UniformNumbersDependOnEveryPartOfTheKey) {
  const double u = UniformAt(1, 2, 3);
  EXPECT_EQ(u, UniformAt(1, 2, 3));
  EXPECT_NE(u, UniformAt(2, 2, 3));
  EXPECT_NE(u, UniformAt(1 + (uint64_t{1} << 32), 2, 3));
  EXPECT_NE(u, UniformAt(1, 3, 3));
  EXPECT_NE(u, UniformAt(1, 2, 4));
  EXPECT_NE(u, UniformAt(1, 2, 3 + (uint64_t{1} << 32)));
}

TEST(PhiloxTest, UniformNumbersFillTheUnitInterval) {
  constexpr int kCount = 1 << 20, kBins = 64;
  int bins[kBins] = {};
  double sum = 0.0;
  for (int i = 0; i < kCount; ++i) {
    const double u = UniformAt(42, 7, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++bins[static_cast<int>(u * kBins)];
    sum += u;
  }
  EXPECT_NEAR(sum / kCount, 0.5, 5 * 0.2887 / 1024);
  double chi_square = 0.0;
  for (int count : bins) {
    const double expected = static_cast<double>(kCount) / kBins;
    chi_square += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_square,
            127.0);  // 63 degrees of freedom: five in a million exceed it; the numbers are fixed
}

}  // namespace
}  // namespace sluice
