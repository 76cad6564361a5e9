// The limits that kernels are compared with, measured on this machine.
#ifndef SLUICE_TESTS_BENCH_MACHINE_PEAK_H_
#define SLUICE_TESTS_BENCH_MACHINE_PEAK_H_

namespace sluice {

// Bytes read and written per second by memcpy between buffers of `bytes`, on one thread.
double MemcpyBytesPerSecond(long bytes);
// fp32 operations per second of independent fused multiply-adds in registers, on one thread.
double FmaPeakFlops();

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_MACHINE_PEAK_H_
