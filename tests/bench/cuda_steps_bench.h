// Whole steps of the 1.3B model with random weights on the CUDA backend.
#ifndef SLUICE_TESTS_BENCH_CUDA_STEPS_BENCH_H_
#define SLUICE_TESTS_BENCH_CUDA_STEPS_BENCH_H_

#include "tests/bench/cuda_timing.h"

namespace sluice {

// Prints tables, batch-invariant and not.
void CudaStepsBench(int device, const GpuLimits& limits, bool decode, bool mixed, bool prefill);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_CUDA_STEPS_BENCH_H_
