#include "tests/bench/best_time.h"

#include <algorithm>
#include <chrono>

namespace sluice {

double BestTime(const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  run();
  double best = 1e30;
  for (int round = 0; round < 5; ++round) {
    const Clock::time_point begin = Clock::now();
    double seconds = 0.0;
    int64_t calls = 0;
    while (seconds < 0.03) {
      run();
      ++calls;
      seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    }
    best = std::min(best, seconds / static_cast<double>(calls));
  }
  return best;
}

}  // namespace sluice
