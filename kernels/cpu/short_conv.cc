#include "kernels/cpu/short_conv.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/activations.h"

namespace sluice {
namespace {

// Input `row` of this step; a negative one is in the tail.
const float* Input(const ShortConvArgs& args, int64_t row) {
  return row >= 0 ? args.in + row * args.in_stride
                  : args.tail + (row + args.taps - 1) * args.tail_stride;
}

}  // namespace

void ShortConvRow(const ShortConvArgs& args, int64_t row, float* out) {
  const float* inputs[kMaxConvTaps];
  for (int64_t j = 0; j < args.taps; ++j) inputs[j] = Input(args, row - (args.taps - 1) + j);
  for (int64_t c = 0; c < args.channels; ++c) {
    float sum = 0.0f;
    for (int64_t j = 0; j < args.taps; ++j) sum += args.weight[c * args.taps + j] * inputs[j][c];
    out[c] = args.bias == nullptr ? sum : sum + args.bias[c];
  }
  if (args.silu) ApplySilu(args.channels, out);
}

void ShortConvAdvance(const ShortConvArgs& args, int64_t rows) {
  // Ascending: each entry comes from a later one or from this step.
  for (int64_t j = 0; j < args.taps - 1; ++j) {
    float* to = args.tail + j * args.tail_stride;
    const float* from = Input(args, rows - (args.taps - 1) + j);
    if (from != to) std::memcpy(to, from, args.channels * sizeof(float));
  }
}

}  // namespace sluice
