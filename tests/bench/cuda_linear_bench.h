#ifndef SLUICE_TESTS_BENCH_CUDA_LINEAR_BENCH_H_
#define SLUICE_TESTS_BENCH_CUDA_LINEAR_BENCH_H_

#include "tests/bench/cuda_timing.h"

namespace sluice {

// Tables of the generic linear core at the 1.3B shapes of GLA's relatives: decode rows and prompts,
// beside their floors.
void CudaLinearBench(const CudaTiming& timing, const GpuLimits& limits);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_CUDA_LINEAR_BENCH_H_
