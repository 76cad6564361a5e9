// The cases that every backend's linear and delta cores must compute: specs and shapes, one of each
// kind of decay and way in which heads share queries, keys and states, and the cores' recurrence in
// fp64. Adding a line to CoreCases adds it to the tests of all backends.
#ifndef SLUICE_TESTS_KERNELS_CORE_CASES_H_
#define SLUICE_TESTS_KERNELS_CORE_CASES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/mixer_spec.h"

namespace sluice {

// A mixer with nothing before and behind the core but its gate and its normaliser.
struct CoreCase {
  std::string name;
  MixerSpec spec;
  // Host values of the weights that the spec uses; empty ones are not used.
  std::vector<float> log_decay;    // Decay::kConst
  std::vector<float> gate_bias;    // GateMap::kMamba2, kGla, kGatedDelta, kKda
  std::vector<float> a_log;        // GateMap::kMamba2, kGatedDelta, kKda
  std::vector<float> gate;         // GateMap::kKda: (state_heads * dk, columns of gate_in)
  std::vector<float> lower_bound;  // GateMap::kHgrn2
  double input_scale = 1.0;        // deviation of the columns that the gate is made of
  bool same_keys = false;          // all tokens have nearly the same
  double tolerance = 4e-6;         // relative root mean square error in fp32, of o and of the state
};

std::vector<CoreCase> CoreCases();

// (rows, in_dim), random.
std::vector<float> CoreInputs(const CoreCase& c, int64_t rows, uint64_t seed);

// One sequence through the core, token by token.
class ReferenceCore {
 public:
  explicit ReferenceCore(const CoreCase* c);

  // in (in_dim) -> o (out_dim)
  std::vector<double> Step(const float* in);

  const std::vector<double>& state() const { return s_; }  // (state_heads, dk, dv)

 private:
  // The log decays of a delta mixer: log D, (state_heads, dk).
  std::vector<double> DeltaLogDecays(const float* in) const;
  std::vector<double> DeltaStep(const float* in);

  const CoreCase* const case_;
  bool fresh_ = true;
  std::vector<double> s_;
  std::vector<double> z_;        // (state_heads, dk): the normaliser
  std::vector<double> log_sum_;  // (state_heads, dk): GateMap::kLightNet's
};

}  // namespace sluice

#endif  // SLUICE_TESTS_KERNELS_CORE_CASES_H_
