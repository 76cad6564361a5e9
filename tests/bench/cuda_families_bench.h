#ifndef SLUICE_TESTS_BENCH_CUDA_FAMILIES_BENCH_H_
#define SLUICE_TESTS_BENCH_CUDA_FAMILIES_BENCH_H_

#include <string>
#include <vector>

#include "tests/bench/cuda_timing.h"

namespace sluice {

// A table of whole models of every family at its published 1.3B shape with random weights: decode
// steps and prompts, beside their floors.
// All families, or those that are among `names`.
void CudaFamiliesBench(int device, const GpuLimits& limits, const std::vector<std::string>& names);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_CUDA_FAMILIES_BENCH_H_
