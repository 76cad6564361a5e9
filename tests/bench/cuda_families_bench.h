#ifndef SLUICE_TESTS_BENCH_CUDA_FAMILIES_BENCH_H_
#define SLUICE_TESTS_BENCH_CUDA_FAMILIES_BENCH_H_

#include "tests/bench/cuda_timing.h"

namespace sluice {

// A table of whole models of every family at its published 1.3B shape with random weights: decode
// steps and prompts, beside their floors.
void CudaFamiliesBench(int device, const GpuLimits& limits);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_CUDA_FAMILIES_BENCH_H_
