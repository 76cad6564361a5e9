// sluice_bench kernels: the CPU backend's ops beside the limits of the machine.
#ifndef SLUICE_TESTS_BENCH_KERNELS_BENCH_H_
#define SLUICE_TESTS_BENCH_KERNELS_BENCH_H_

namespace sluice {

// Prints tables; returns the process's exit code. threads 0: all.
int RunKernelsBench(int threads, bool avx2_only);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_KERNELS_BENCH_H_
