// The back of a mixer, everything that comes after its state: normaliser, skip, norm and output
// gate, one row at a time.
#ifndef SLUICE_KERNELS_CPU_LINEAR_BACK_H_
#define SLUICE_KERNELS_CPU_LINEAR_BACK_H_

#include <cstdint>

#include "kernels/mixer_spec.h"

namespace sluice {

struct BackRow {
  const float* in = nullptr;    // the row of the input projection: for the output gate
  const float* gate = nullptr;  // (out_dim): with a gate of low rank: what ProjectOutGate wrote
  const float* o = nullptr;     // (heads, o_stride)
  int64_t o_stride = 0;
  const float* den = nullptr;  // (heads, den_stride), with a normaliser
  int64_t den_stride = 0;
  const float* skip = nullptr;  // (heads, dv), with a skip
  float* out = nullptr;         // out: (out_dim), padded to a whole line
};

// An output gate of low rank, of rows [0, rows) from `in` (rows, in_stride) on:
// gate (rows, gate_stride) = out_gate c + out_gate_bias.
void ProjectOutGate(const MixerSpec& spec, const MixerWeights& weights, const float* in,
                    int64_t in_stride, int64_t rows, int64_t gate_stride, float* gate);

// One row: collects o, norms it and multiplies it with the output gate, into row.out.
void RunLinearBack(const MixerSpec& spec, const MixerWeights& weights, const BackRow& row);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_LINEAR_BACK_H_
