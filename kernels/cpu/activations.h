// Elementwise parts of the mixers. All arrays are padded to a whole line of 16 floats, and all
// of a line is written; `n` counts the elements that matter.
#ifndef SLUICE_KERNELS_CPU_ACTIVATIONS_H_
#define SLUICE_KERNELS_CPU_ACTIVATIONS_H_

#include <cstdint>

#include "kernels/mixer_spec.h"

namespace sluice {

// x = scale * map(x). With identity and scale 1 nothing is done.
void ApplyFeatureMap(FeatureMap map, float scale, int64_t n, float* x);

// The decay of a token per key channel, alpha = exp(max(logsigmoid(z + bias) / 16, log_gate_min)):
// in (0, 1]. `z` holds the gate's projection on entry and alpha on return. (arXiv 2312.06635,
// section 4.4: alpha = sigmoid(z)^(1/16))
void GateDecay(const float* bias, bool clamp, float log_gate_min, int64_t n, float* z);

void ApplySilu(int64_t n, float* x);

// The decay of one head's key channels as KDA has it (arXiv 2510.26692), alpha = e^g in (0, 1]: `z`
// holds the gate's projection with its bias on entry and alpha on return; rate = e^a_log. These two
// take any n, and write no more.
//   g = -rate softplus(z)
void SoftplusDecay(float rate, int64_t n, float* z);
//   g = bound sigmoid(rate z), bound <= 0
void BoundedDecay(float rate, float bound, int64_t n, float* z);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_ACTIVATIONS_H_
