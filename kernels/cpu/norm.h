// Norms of rows. Sums run in an order fixed by the width alone.
#ifndef SLUICE_KERNELS_CPU_NORM_H_
#define SLUICE_KERNELS_CPU_NORM_H_

#include <cstdint>

#include "kernels/mixer_spec.h"

namespace sluice {

// The norm at the beginning of a branch. x, y, weight and bias (n) padded with zeros to a whole
// line of 16 floats; null weight: 1, null bias: 0. y may be x.
// NormKind::kRms    y = x / sqrt(mean(x^2) + eps) * weight        (Zhang and Sennrich 2019)
// NormKind::kLayer  y = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias
void NormRow(const Norm& norm, const float* x, const float* weight, const float* bias, int64_t n,
             float* y);

// The end of a mixer for one head: y = RMSNorm(o; weight) * silu(gate), with neither where null. o
// and weight (n) padded with zeros to a line; gate and y (n) exactly.
void GatedRmsNorm(const float* o, const float* weight, const float* gate, int64_t n, float eps,
                  float* y);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_NORM_H_
