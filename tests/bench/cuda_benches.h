// The benchmarks of sluice_bench on a GPU. A build without CUDA has these functions too, and they
// say so.
#ifndef SLUICE_TESTS_BENCH_CUDA_BENCHES_H_
#define SLUICE_TESTS_BENCH_CUDA_BENCHES_H_

#include <string>
#include <vector>

namespace sluice {

// sluice_bench kernels --device=cuda: tables at the shape of the 1.3B model with random weights.
// First what this GPU can do, then each kernel and whole steps, each beside its floor at that
// bandwidth and rate. `parts` of decode, gemm, mixer, linear, families, step, mixed, prefill;
// empty: all. Exit code.
int RunCudaKernelsBench(int device, const std::vector<std::string>& parts);

// sluice_bench tune: rows for kernels/cuda/gemm_lt_table.h.
int RunCudaTune(int device);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_CUDA_BENCHES_H_
