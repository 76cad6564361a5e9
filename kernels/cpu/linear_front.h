// The front of a mixer, everything that comes before its state: columns of the input projection,
// convolution, feature map, norm, position and scale give q and k; v and the decay likewise. It
// works on one row at a time, in an order that the spec alone fixes.
#ifndef SLUICE_KERNELS_CPU_LINEAR_FRONT_H_
#define SLUICE_KERNELS_CPU_LINEAR_FRONT_H_

#include <cstdint>

#include "kernels/cpu/state_pool.h"
#include "kernels/mixer_spec.h"

namespace sluice {

// One row and where it stands.
struct FrontRow {
  int32_t slot = 0;
  int64_t position = 0;       // in its sequence, from 0
  const float* in = nullptr;  // first row of its segment in this step: (rows, in_stride)
  int64_t in_stride = 0;
  int64_t row = 0;  // of the segment; the convolution reads those before it
};

// The front's results. Heads are dk or, for v, PaddedCols(dv) floats apart; zeros pad v.
struct FrontOutput {
  float* q = nullptr;  // (q_heads, dk), scaled
  float* k = nullptr;  // (k_heads, dk)
  float* v = nullptr;  // (v_heads, PaddedCols(dv))
  // Decay::kHead: log D (state_heads); kKey: D (state_heads, dk). GateMap::kKda and kKdaBounded: on
  // entry what ProjectGate writes.
  float* decay = nullptr;
  float* beta = nullptr;  // Core::kDelta: (state_heads)
  float* skip = nullptr;  // (v_heads, dv), where the spec has a skip
};

// Floats of scratch that RunLinearFront needs.
int64_t LinearFrontScratch(const MixerSpec& spec);

// The gates that have a matrix, of rows [0, rows) from `in` (rows, in_stride) on:
// decay (rows, decay_stride) = gate c + gate_bias. Others: nothing.
void ProjectGate(const MixerSpec& spec, const MixerWeights& weights, const float* in,
                 int64_t in_stride, int64_t rows, int64_t decay_stride, float* decay);

// GateMap::kLightNet's k is left as it is projected: LightNetScan makes key and decay of it.
void RunLinearFront(const MixerSpec& spec, const MixerWeights& weights, int64_t layer,
                    const FrontRow& row, StatePool* states, float* scratch, const FrontOutput& out);

// After the last of a segment's rows has been through RunLinearFront: its convolutions' tails.
void AdvanceTails(const MixerSpec& spec, int64_t layer, const FrontRow& first, int64_t rows,
                  StatePool* states);

// GateMap::kLightNet, channels [begin, end) of one state head over `tokens` rows, in their order:
// k becomes the key, `decay` D, and `log_sum` follows. `fresh`: the first row is its sequence's.
void LightNetScan(int64_t tokens, int64_t begin, int64_t end, bool fresh, float* k,
                  int64_t k_stride, float* decay, int64_t decay_stride, float* log_sum);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_LINEAR_FRONT_H_
