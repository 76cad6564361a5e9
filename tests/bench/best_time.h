// How the benchmarks of kernels take a time.
#ifndef SLUICE_TESTS_BENCH_BEST_TIME_H_
#define SLUICE_TESTS_BENCH_BEST_TIME_H_

#include <functional>

namespace sluice {

// Seconds of one call of `run`, the best of five rounds of at least 30 ms.
double BestTime(const std::function<void()>& run);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_BEST_TIME_H_
