// Random numbers that a seed gives on every machine.
#ifndef SLUICE_CLIENT_BENCH_RANDOM_H_
#define SLUICE_CLIENT_BENCH_RANDOM_H_

#include <cstdint>

namespace sluice {

// splitmix64. One thread.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  uint64_t Below(uint64_t bound) { return Next() % bound; }  // bias below bound / 2^64
  double Uniform();                                          // in (0, 1]: it has a logarithm
  double Normal();                                           // mean 0, variance 1
  double Gamma(double shape);                                // scale 1; shape above 0

 private:
  uint64_t state_;
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_RANDOM_H_
