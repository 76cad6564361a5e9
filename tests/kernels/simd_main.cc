// gtest's main with one option more: --simd=avx2 or --simd=scalar runs the kernels as a machine
// without AVX-512, or without any vectors that they know, would.
#include <cstring>

#include "gtest/gtest.h"
#include "hwy/targets.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
#if HWY_ARCH_X86
    if (std::strcmp(argv[i], "--simd=avx2") == 0) hwy::DisableTargets(HWY_AVX3 | HWY_AVX3_DL);
#endif
    if (std::strcmp(argv[i], "--simd=scalar") == 0) hwy::DisableTargets(~HWY_SCALAR);
  }
  return RUN_ALL_TESTS();
}
