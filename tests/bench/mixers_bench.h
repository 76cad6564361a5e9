// `sluice_bench kernels` on a CPU: one layer of each kind of mixer, front, core and back.
#ifndef SLUICE_TESTS_BENCH_MIXERS_BENCH_H_
#define SLUICE_TESTS_BENCH_MIXERS_BENCH_H_

#include "kernels/cpu/thread_pool.h"

namespace sluice {

// Prints a table to standard output.
void BenchMixers(ThreadPool* pool);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_MIXERS_BENCH_H_
