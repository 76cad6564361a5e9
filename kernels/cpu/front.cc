#include "kernels/cpu/front.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/activations.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/short_conv.h"

namespace sluice {

struct Front::Input {
  const Columns* columns;  // of the input projection
  int64_t channel;         // the first of those wanted
  int64_t channels;
  const Vector* conv;  // (columns, taps)
  StatePartKind tail;
};

namespace {

const float* RowOf(const Activation& x, int64_t row) {
  return static_cast<const float*>(x.data) + row * PaddedCols(x.cols);
}

// The range among `heads` heads to which the state heads of `range` belong.
HeadRange Scaled(HeadRange range, int64_t heads, int64_t state_heads) {
  if (heads >= state_heads) {
    const int64_t group = heads / state_heads;
    return {range.begin * group, range.end * group};
  }
  const int64_t group = state_heads / heads;
  return {range.begin / group, (range.end + group - 1) / group};
}

}  // namespace

Front::Input Front::Q(HeadRange heads) const {
  const HeadRange own = Scaled(heads, spec_.q_heads, spec_.state_heads);
  return {&spec_.q, own.begin * spec_.key_width, (own.end - own.begin) * spec_.key_width,
          &weights_.conv_q, StatePartKind::kConvQ};
}

Front::Input Front::K(HeadRange heads) const {
  const HeadRange own = Scaled(heads, spec_.k_heads, spec_.state_heads);
  return {&spec_.k, own.begin * spec_.key_width, (own.end - own.begin) * spec_.key_width,
          &weights_.conv_k, StatePartKind::kConvK};
}

Front::Input Front::V(HeadRange heads) const {
  const HeadRange own = Scaled(heads, spec_.v_heads, spec_.state_heads);
  return {&spec_.v, own.begin * spec_.dv, (own.end - own.begin) * spec_.dv, &weights_.conv_v,
          StatePartKind::kConvV};
}

namespace {

ShortConvArgs ConvArgs(const MixArgs& args, const Columns& columns, int64_t channel,
                       int64_t channels, const Vector& weight, StatePartKind tail,
                       const RowSpan& span, StatePool* states) {
  const int64_t taps = args.spec->conv.taps;
  ShortConvArgs conv;
  conv.weight = weight.data + channel * taps;
  conv.taps = taps;
  conv.channels = channels;
  if (taps > 1) conv.tail = states->Part(span.slot, args.layer, tail) + channel;
  conv.tail_stride = columns.width;
  conv.in = RowOf(args.in, span.first_row) + columns.offset + channel;
  conv.in_stride = PaddedCols(args.in.cols);
  return conv;
}

}  // namespace

void Front::Fetch(const Input& s, const RowSpan& span, int64_t t, float* to) const {
  if (spec_.conv.taps == 0) {
    std::memcpy(to, RowOf(args_.in, span.row() + t) + s.columns->offset + s.channel,
                s.channels * sizeof(float));
    return;
  }
  ShortConvRow(ConvArgs(args_, *s.columns, s.channel, s.channels, *s.conv, s.tail, span, states_),
               span.begin + t, to);
}

void Front::Advance(const Input& s, const RowSpan& span, int64_t rows) const {
  ShortConvAdvance(
      ConvArgs(args_, *s.columns, s.channel, s.channels, *s.conv, s.tail, span, states_), rows);
}

void Front::AdvanceTails(const RowSpan& span, HeadRange heads, int64_t rows) const {
  if (spec_.conv.taps <= 1) return;
  Advance(Q(heads), span, rows);
  Advance(K(heads), span, rows);
  Advance(V(heads), span, rows);
}

// Each head padded by itself.
void Front::FetchValues(const RowSpan& span, HeadRange heads, int64_t t, float* v) const {
  const int64_t padded = PaddedCols(spec_.dv);
  const HeadRange own = Scaled(heads, spec_.v_heads, spec_.state_heads);
  for (int64_t head = own.begin; head < own.end; ++head) {
    float* to = v + head * padded;
    std::fill(to + spec_.dv, to + padded, 0.0f);
    const Input input = {&spec_.v, head * spec_.dv, spec_.dv, &weights_.conv_v,
                         StatePartKind::kConvV};
    Fetch(input, span, t, to);
  }
}

// GateMap::kGla.
void Front::Decay(const RowSpan& span, HeadRange heads, const CoreInputs& to) const {
  const int64_t first = heads.begin * spec_.dk, end = heads.end * spec_.dk;
  GemmArgs gemm;
  gemm.a = RowOf(args_.in, span.row()) + spec_.gate_in.offset;
  gemm.lda = PaddedCols(args_.in.cols);
  gemm.m = span.tokens;
  gemm.w = weights_.gate;
  gemm.c = to.decay;
  gemm.ldc = to.decay_stride;
  GemmBlock(gemm, 0, span.tokens, first / kPanelRows, PanelCount(end));
  for (int64_t t = 0; t < span.tokens; ++t) {
    GateDecay(weights_.gate_bias.data + first, spec_.clamp_log_gate, spec_.log_gate_min,
              end - first, to.decay + t * to.decay_stride + first);
  }
}

void Front::Run(const RowSpan& span, HeadRange heads, const CoreInputs& to) const {
  const Input q = Q(heads), k = K(heads);
  for (int64_t t = 0; t < span.tokens; ++t) {
    float* q_row = to.q + t * to.q_stride + q.channel;
    Fetch(q, span, t, q_row);
    ApplyFeatureMap(spec_.q_map, spec_.q_scale, q.channels, q_row);
    float* k_row = to.k + t * to.k_stride + k.channel;
    Fetch(k, span, t, k_row);
    ApplyFeatureMap(spec_.k_map, 1.0f, k.channels, k_row);
    FetchValues(span, heads, t, to.v + t * to.v_stride);
  }
  Decay(span, heads, to);
}

}  // namespace sluice
