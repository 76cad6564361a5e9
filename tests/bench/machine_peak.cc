#include "tests/bench/machine_peak.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/machine_peak.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

// Twelve chains hide the latency of two multiply-adds a cycle. Returns a value that depends on all
// of them.
float FmaChains(long rounds) {
  V acc[12];
  for (int i = 0; i < 12; ++i) acc[i] = Splat(static_cast<float>(i));
  const V x = Splat(0.999f), y = Splat(0.001f);
  for (long round = 0; round < rounds; ++round) {
    for (V& a : acc) a = hn::MulAdd(a, x, y);
  }
  for (int i = 1; i < 12; ++i) acc[0] = hn::Add(acc[0], acc[i]);
  return SumLanes(acc[0]);
}

long Lanes() { return kLanes; }

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice {
namespace {

HWY_EXPORT(FmaChains);
HWY_EXPORT(Lanes);

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace

double MemcpyBytesPerSecond(long bytes) {
  std::vector<char> from(bytes, 1), to(bytes, 2);
  double best = 0.0;
  for (int round = 0; round < 30; ++round) {
    const Clock::time_point begin = Clock::now();
    std::memcpy(to.data(), from.data(), bytes);
    best = std::max(best, 2.0 * static_cast<double>(bytes) / Seconds(begin));
    from[round] = to[bytes - 1 - round];
  }
  return best;
}

double FmaPeakFlops() {
  constexpr long kRounds = 2000000;
  double best = 0.0;
  volatile float sink = 0.0f;
  for (int round = 0; round < 5; ++round) {
    const Clock::time_point begin = Clock::now();
    sink = sink + HWY_DYNAMIC_DISPATCH(FmaChains)(kRounds);
    best = std::max(best, 12.0 * 2.0 * kRounds * HWY_DYNAMIC_DISPATCH(Lanes)() / Seconds(begin));
  }
  return best;
}

}  // namespace sluice
#endif  // HWY_ONCE
