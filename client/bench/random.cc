#include "client/bench/random.h"

#include <cmath>

namespace sluice {

uint64_t Random::Next() {
  uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

double Random::Uniform() { return (static_cast<double>(Next() >> 11) + 1) * 0x1p-53; }

// Box and Muller's method; its second number is not kept.
double Random::Normal() {
  const double radius = std::sqrt(-2 * std::log(Uniform()));
  return radius * std::cos(2 * M_PI * Uniform());
}

// Marsaglia and Tsang, "A simple method for generating gamma variables", 2000.
double Random::Gamma(double shape) {
  if (shape == 1) return -std::log(Uniform());
  if (shape < 1) {
    const double larger = Gamma(shape + 1);
    return larger * std::pow(Uniform(), 1 / shape);
  }
  const double d = shape - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = Normal();
    const double v = std::pow(1 + c * x, 3);
    if (v > 0 && std::log(Uniform()) < x * x / 2 + d - d * v + d * std::log(v)) return d * v;
  }
}

}  // namespace sluice
