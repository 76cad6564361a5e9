// When the requests of an open loop are due.
#ifndef SLUICE_CLIENT_BENCH_ARRIVALS_H_
#define SLUICE_CLIENT_BENCH_ARRIVALS_H_

#include <cstdint>

#include "absl/time/time.h"
#include "client/bench/random.h"

namespace sluice {

enum class ArrivalProcess : uint8_t { kPoisson, kUniform };

struct ArrivalOptions {
  double rate = 0;  // requests per second on average; 0: no open loop
  // kUniform: every gap is 1 / rate. kPoisson: gaps are gamma distributed.
  ArrivalProcess process = ArrivalProcess::kPoisson;
  // Shape of the gamma distribution. 1: exponential gaps, a Poisson process. Below: bursts (the
  // gaps' coefficient of variation is 1 / sqrt(burstiness)). Above: more even.
  double burstiness = 1;
  uint64_t seed = 0;
};

// The gaps, one after the other. One thread.
class Arrivals {
 public:
  explicit Arrivals(const ArrivalOptions& options) : options_(options), random_(options.seed) {}
  absl::Duration NextGap();

 private:
  const ArrivalOptions options_;
  Random random_;
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_ARRIVALS_H_
