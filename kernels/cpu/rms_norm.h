// RMSNorm (Zhang and Sennrich 2019): y = x / sqrt(mean(x^2) + eps) * weight. Sums run in an order
// fixed by the width alone.
#ifndef SLUICE_KERNELS_CPU_RMS_NORM_H_
#define SLUICE_KERNELS_CPU_RMS_NORM_H_

#include <cstdint>

namespace sluice {

// x, y and weight (n) padded with zeros to a whole line of 16 floats. y may be x.
void RmsNorm(const float* x, const float* weight, int64_t n, float eps, float* y);

// The end of the GLA mixer for one head: y = RMSNorm(o; weight) * silu(gate), with neither where
// null. o and weight (n) padded with zeros to a line; gate and y (n) exactly.
void GatedRmsNorm(const float* o, const float* weight, const float* gate, int64_t n, float eps,
                  float* y);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_RMS_NORM_H_
