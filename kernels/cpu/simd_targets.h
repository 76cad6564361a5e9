// Chooses the instruction sets that the kernels are compiled for. Include it before anything of
// Highway's. One set is chosen for the process when the first kernel runs.
#ifndef SLUICE_KERNELS_CPU_SIMD_TARGETS_H_
#define SLUICE_KERNELS_CPU_SIMD_TARGETS_H_

#include "hwy/detect_targets.h"

// Vectors must have a size known to the compiler, so no SVE; SSE-only machines get the portable
// target.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#endif  // SLUICE_KERNELS_CPU_SIMD_TARGETS_H_
