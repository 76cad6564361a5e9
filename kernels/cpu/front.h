// The front of a mixer: from rows of the input projection to what the core takes. Columns are
// fetched, convolved, mapped and scaled, and the decay is made of the gate's columns.
#ifndef SLUICE_KERNELS_CPU_FRONT_H_
#define SLUICE_KERNELS_CPU_FRONT_H_

#include <cstdint>

#include "kernels/cpu/state_pool.h"
#include "kernels/ops.h"

namespace sluice {

// Tokens of one sequence, in neighbouring rows of a step.
struct RowSpan {
  int32_t slot = 0;
  int64_t first_row = 0;  // of the step, of the first token of its segment (or of the decode row)
  int64_t begin = 0;      // tokens of the segment before these
  int64_t tokens = 0;
  int64_t position = 0;  // of the first of these tokens in its sequence

  int64_t row() const { return first_row + begin; }
};

// State heads [begin, end), with the q, k and v heads that belong to them.
struct HeadRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// The places that the front writes to. Each pointer is that of head 0 of a token; strides are
// between tokens. Only a range's own heads are written.
struct CoreInputs {
  float* q = nullptr;  // (q_heads, dk), mapped and scaled
  int64_t q_stride = 0;
  float* k = nullptr;  // (k_heads, dk)
  int64_t k_stride = 0;
  float* decay = nullptr;  // Decay::kKey: D in (0, 1], (state_heads, dk)
  int64_t decay_stride = 0;
  float* v = nullptr;  // (v_heads, dv padded with zeros to whole lines of 16 floats)
  int64_t v_stride = 0;
};

class Front {
 public:
  // `args` outlives the object.
  Front(const MixArgs& args, StatePool* states)
      : args_(args), spec_(*args.spec), weights_(*args.weights), states_(states) {}

  // Reads the slot's convolution tails and changes nothing of the slot.
  void Run(const RowSpan& span, HeadRange heads, const CoreInputs& to) const;
  // Makes the tails what they must be behind a segment, or a decode row, of `rows` rows.
  void AdvanceTails(const RowSpan& span, HeadRange heads, int64_t rows) const;

 private:
  struct Input;  // q, k or v as it enters

  Input Q(HeadRange heads) const;
  Input K(HeadRange heads) const;
  Input V(HeadRange heads) const;
  void Fetch(const Input& input, const RowSpan& span, int64_t t, float* to) const;
  void Advance(const Input& input, const RowSpan& span, int64_t rows) const;
  void FetchValues(const RowSpan& span, HeadRange heads, int64_t t, float* v) const;
  void Decay(const RowSpan& span, HeadRange heads, const CoreInputs& to) const;

  const MixArgs& args_;
  const MixerSpec& spec_;
  const MixerWeights& weights_;
  StatePool* const states_;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_FRONT_H_
