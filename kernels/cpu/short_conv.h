// The short convolution on q, k and v: depthwise, causal, then for most models SiLU:
//   out[t, c] = silu( sum_{j < taps} w[c, j] * in[t - (taps - 1) + j, c] + bias[c] )
// Inputs before the sequence's first are zeros; those before the current step lie in the state's
// tail.
#ifndef SLUICE_KERNELS_CPU_SHORT_CONV_H_
#define SLUICE_KERNELS_CPU_SHORT_CONV_H_

#include <cstdint>

namespace sluice {

inline constexpr int64_t kMaxConvTaps = 64;

// A range of channels of one of q, k, v.
struct ShortConvArgs {
  const float* weight = nullptr;  // (channels, taps)
  const float* bias = nullptr;    // (channels), or null
  bool silu = true;
  int64_t taps = 0;  // in [1, kMaxConvTaps]
  int64_t channels = 0;
  float* tail = nullptr;  // (taps - 1, tail_stride): the last inputs of earlier steps, oldest first
  int64_t tail_stride = 0;
  const float* in = nullptr;  // (rows, in_stride): this step's inputs
  int64_t in_stride = 0;
};

// Output of row `row`; out (channels) padded to a whole line. Reads `tail`, does not change it.
void ShortConvRow(const ShortConvArgs& args, int64_t row, float* out);

// Makes `tail` what it must be after this step's `rows` rows.
void ShortConvAdvance(const ShortConvArgs& args, int64_t rows);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_SHORT_CONV_H_
