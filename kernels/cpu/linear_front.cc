#include "kernels/cpu/linear_front.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "kernels/cpu/activations.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/short_conv.h"
#include "kernels/mixer_math.h"

namespace sluice {
namespace {

// One of q, k, v as it enters the mixer.
struct Input {
  Columns columns;
  const Vector* weight;  // of the convolution
  const Vector* bias;
  StatePartKind tail;
};

constexpr int kInputs = 3;

void Inputs(const MixerSpec& spec, const MixerWeights& w, Input (&inputs)[kInputs]) {
  inputs[0] = {spec.q, &w.conv_q, &w.conv_q_bias, StatePartKind::kConvQ};
  inputs[1] = {spec.k, &w.conv_k, &w.conv_k_bias, StatePartKind::kConvK};
  inputs[2] = {spec.v, &w.conv_v, &w.conv_v_bias, StatePartKind::kConvV};
}

ShortConvArgs ConvArgs(const MixerSpec& spec, const Input& input, int64_t layer,
                       const FrontRow& row, StatePool* states) {
  ShortConvArgs conv;
  conv.weight = input.weight->data;
  if (spec.conv.bias && input.bias->size > 0) conv.bias = input.bias->data;
  conv.silu = spec.conv.silu;
  conv.taps = spec.conv.taps;
  conv.channels = input.columns.width;
  if (conv.taps > 1) conv.tail = states->Part(row.slot, layer, input.tail);
  conv.tail_stride = input.columns.width;
  conv.in = row.in + input.columns.offset;
  conv.in_stride = row.in_stride;
  return conv;
}

// A head's width behind the map, before the position.
int64_t MappedWidth(FeatureMap map, int64_t width) {
  switch (map) {
    case FeatureMap::kHedgehog:
      return 2 * width;
    case FeatureMap::kDpfp:
      return 8 * width;
    default:
      return width;
  }
}

// y (heads, PaddedCols(w.n)) = x (heads, w.k) W^T + bias
void Project(const float* x, int64_t heads, const Linear& w, const Vector& bias, float* y) {
  GemmArgs gemm;
  gemm.a = x;
  gemm.lda = w.k;
  gemm.m = heads;
  gemm.w = w;
  gemm.c = y;
  gemm.ldc = PaddedCols(w.n);
  if (bias.size > 0) gemm.bias = bias.data;
  GemmBlock(gemm, 0, heads, 0, GemmPanels(gemm));
}

// The map, norm, position and scale of q or of k.
struct HeadMap {
  FeatureMap map;
  const Linear* matrix;
  const Vector* bias;
  const Linear* matrix2;
  const Vector* bias2;
  QkNorm norm;
  float scale;
};

void NormHead(QkNorm norm, int64_t n, float* x) {
  constexpr float kEps = 1e-6f;  // of the delta rule's norms
  switch (norm) {
    case QkNorm::kNone:
    case QkNorm::kRms:  // softmax layers', refused by CheckSpec
      break;
    case QkNorm::kSum:
      mixer_math::NormalizeSum(n, x);
      break;
    case QkNorm::kL2:
      mixer_math::NormalizeL2(n, kEps, x);
      break;
    case QkNorm::kSumAbs:
      mixer_math::NormalizeSumAbs(n, kEps, x);
      break;
  }
}

// x (heads, width) -> out (heads, stride), of which the mapped width is written. x is destroyed.
void MapHeads(const HeadMap& m, int64_t heads, int64_t width, int64_t stride, float* x,
              float* scratch, float* out) {
  const int64_t padded = PaddedCols(width);
  float* y = scratch;              // (heads, padded)
  float* y2 = y + heads * padded;  // (heads, padded)
  const bool projects =
      m.map == FeatureMap::kT2r || m.map == FeatureMap::kProduct || m.map == FeatureMap::kHedgehog;
  if (projects) Project(x, heads, *m.matrix, *m.bias, y);
  if (m.map == FeatureMap::kProduct) Project(x, heads, *m.matrix2, *m.bias2, y2);
  for (int64_t head = 0; head < heads; ++head) {
    const float* from = projects ? y + head * padded : x + head * width;
    float* to = out + head * stride;
    if (m.map == FeatureMap::kHedgehog) {
      mixer_math::Hedgehog(from, width, to);
    } else if (m.map == FeatureMap::kDpfp) {
      for (int64_t i = 0; i < 8 * width; ++i) to[i] = mixer_math::Dpfp(from, width, i);
    } else if (m.map == FeatureMap::kProduct) {
      const float* other = y2 + head * padded;
      for (int64_t i = 0; i < width; ++i) to[i] = from[i] * other[i];
    } else {
      for (int64_t i = 0; i < width; ++i) to[i] = mixer_math::MapElement(m.map, from[i]);
    }
    NormHead(m.norm, MappedWidth(m.map, width), to);
  }
}

// Turns every head of x (heads, dk) by the row's position.
void RotateHalves(const MixerSpec& spec, int64_t heads, int64_t position, float* x) {
  const int64_t half = spec.dk / 2;
  for (int64_t i = 0; i < half; ++i) {
    const mixer_math::Rotation rotation =
        mixer_math::RotationAt(mixer_math::RotaryFrequency(i, spec.dk, spec.rope_theta), position);
    for (int64_t head = 0; head < heads; ++head) {
      float* pair = x + head * spec.dk + i;
      mixer_math::Rotate(rotation, pair, pair + half);
    }
  }
}

// x (heads, dk), of each head the first half is filled -> [x cos, x sin].
void ExpandLrpe(const MixerSpec& spec, const Vector& theta, int64_t heads, int64_t position,
                float* x) {
  const int64_t half = spec.dk / 2;
  for (int64_t head = 0; head < heads; ++head) {
    float* to = x + head * spec.dk;
    for (int64_t i = 0; i < half; ++i) {
      const mixer_math::Rotation rotation =
          mixer_math::RotationAt(theta.data[head * half + i], position);
      to[half + i] = to[i] * rotation.sin;
      to[i] *= rotation.cos;
    }
  }
}

void MapAndPlace(const MixerSpec& spec, const MixerWeights& w, const HeadMap& map, int64_t heads,
                 int64_t position, float* x, float* scratch, float* out) {
  MapHeads(map, heads, spec.key_width, spec.dk, x, scratch, out);
  if (spec.rope == Rope::kHalves) RotateHalves(spec, heads, position, out);
  if (spec.rope == Rope::kLrpe) ExpandLrpe(spec, w.theta, heads, position, out);
  if (map.scale == 1.0f) return;
  for (int64_t i = 0; i < heads * spec.dk; ++i) out[i] *= map.scale;
}

// dt and the decay of every head, and v = dt x.
void Mamba2Gates(const MixerSpec& spec, const MixerWeights& w, const float* raw,
                 const FrontOutput& out) {
  const int64_t dv_padded = PaddedCols(spec.dv);
  const int64_t states_per_v = spec.state_heads / spec.v_heads;
  SLUICE_CHECK(states_per_v == 1);
  for (int64_t head = 0; head < spec.state_heads; ++head) {
    const mixer_math::Mamba2Gate gate = mixer_math::Mamba2Step(
        raw[head], w.gate_bias.data[head], w.a_log.data[head], spec.dt_min, spec.dt_max);
    out.decay[head] = gate.log_decay;
    float* v = out.v + head * dv_padded;
    for (int64_t i = 0; i < spec.dv; ++i) v[i] *= gate.dt;
  }
}

// One gate a head: of Simple GLA (arXiv 2312.06635's gate with a scalar).
void HeadGates(const MixerSpec& spec, const MixerWeights& w, const float* raw, float* log_decay) {
  for (int64_t head = 0; head < spec.state_heads; ++head) {
    const float bias = w.gate_bias.size > 0 ? w.gate_bias.data[head] : 0.0f;
    log_decay[head] =
        mixer_math::GlaLogDecay(raw[head] + bias, spec.clamp_log_gate, spec.log_gate_min);
  }
}

// The same as Gated DeltaNet has it.
void GatedDeltaGates(const MixerSpec& spec, const MixerWeights& w, const float* raw,
                     float* log_decay) {
  for (int64_t head = 0; head < spec.state_heads; ++head) {
    log_decay[head] =
        mixer_math::GatedDeltaLogDecay(raw[head], w.gate_bias.data[head], w.a_log.data[head]);
  }
}

// Turns what ProjectGate wrote into the decays.
void KdaGates(const MixerSpec& spec, const MixerWeights& w, float* decay) {
  for (int64_t head = 0; head < spec.state_heads; ++head, decay += spec.dk) {
    const float rate = mixer_math::Exp(w.a_log.data[head]);
    if (spec.gate == GateMap::kKda) {
      SoftplusDecay(rate, spec.dk, decay);
    } else {
      BoundedDecay(rate, spec.log_gate_min, spec.dk, decay);
    }
  }
}

void Betas(const MixerSpec& spec, const float* in, float* beta) {
  const float* raw = in + spec.beta.offset;
  for (int64_t head = 0; head < spec.state_heads; ++head) {
    beta[head] =
        spec.beta.width > 0 ? spec.beta_max * mixer_math::Sigmoid(raw[head]) : spec.beta_max;
  }
}

void Hgrn2Gates(const MixerSpec& spec, const MixerWeights& w, const float* raw,
                const FrontOutput& out) {
  for (int64_t i = 0; i < spec.state_heads * spec.dk; ++i) {
    const mixer_math::KeyGate gate = mixer_math::Hgrn2Gate(raw[i], w.lower_bound.data[i]);
    out.k[i] = gate.key;
    out.decay[i] = gate.decay;
  }
}

// gla's own has one too, and another driver.
bool HasGateMatrix(const MixerSpec& spec) {
  return spec.gate == GateMap::kKda || spec.gate == GateMap::kKdaBounded;
}

int64_t RawFloats(const MixerSpec& spec) {
  return PaddedCols(spec.q.width) + PaddedCols(spec.k.width) + PaddedCols(spec.v.width);
}

}  // namespace

int64_t LinearFrontScratch(const MixerSpec& spec) {
  return RawFloats(spec) + 2 * std::max(spec.q_heads, spec.k_heads) * PaddedCols(spec.key_width);
}

void ProjectGate(const MixerSpec& spec, const MixerWeights& w, const float* in, int64_t in_stride,
                 int64_t rows, int64_t decay_stride, float* decay) {
  if (!HasGateMatrix(spec)) return;
  GemmArgs gemm;
  gemm.a = in + spec.gate_in.offset;
  gemm.lda = in_stride;
  gemm.m = rows;
  gemm.w = w.gate;
  gemm.c = decay;
  gemm.ldc = decay_stride;
  gemm.bias = w.gate_bias.data;
  GemmBlock(gemm, 0, rows, 0, GemmPanels(gemm));
}

void RunLinearFront(const MixerSpec& spec, const MixerWeights& w, int64_t layer,
                    const FrontRow& row, StatePool* states, float* scratch,
                    const FrontOutput& out) {
  Input inputs[kInputs];
  Inputs(spec, w, inputs);
  float* raw[kInputs];
  float* next = scratch;
  const float* in = row.in + row.row * row.in_stride;
  for (int i = 0; i < kInputs; ++i) {
    raw[i] = next;
    next += PaddedCols(inputs[i].columns.width);
    if (spec.conv.taps > 0) {
      ShortConvRow(ConvArgs(spec, inputs[i], layer, row, states), row.row, raw[i]);
    } else {
      std::memcpy(raw[i], in + inputs[i].columns.offset, inputs[i].columns.width * sizeof(float));
    }
  }
  const HeadMap q_map = {spec.q_map,     &w.q_map,    &w.q_map_bias, &w.q_map2,
                         &w.q_map2_bias, spec.q_norm, spec.q_scale};
  MapAndPlace(spec, w, q_map, spec.q_heads, row.position, raw[0], next, out.q);
  if (spec.gate == GateMap::kHgrn2) {
    Hgrn2Gates(spec, w, raw[1], out);
  } else {
    const HeadMap k_map = {spec.k_map,     &w.k_map,    &w.k_map_bias, &w.k_map2,
                           &w.k_map2_bias, spec.k_norm, 1.0f};
    MapAndPlace(spec, w, k_map, spec.k_heads, row.position, raw[1], next, out.k);
  }
  ApplyFeatureMap(spec.v_map, 1.0f, spec.v.width, raw[2]);
  const int64_t dv_padded = PaddedCols(spec.dv);
  for (int64_t head = 0; head < spec.v_heads; ++head) {
    float* to = out.v + head * dv_padded;
    std::memcpy(to, raw[2] + head * spec.dv, spec.dv * sizeof(float));
    std::fill(to + spec.dv, to + dv_padded, 0.0f);
  }
  if (spec.skip != Skip::kNone) std::memcpy(out.skip, raw[2], spec.v.width * sizeof(float));
  const float* gate = in + spec.gate_in.offset;
  if (spec.gate == GateMap::kMamba2) Mamba2Gates(spec, w, gate, out);
  if (spec.gate == GateMap::kGla) {
    SLUICE_CHECK(spec.decay == Decay::kHead);
    HeadGates(spec, w, gate, out.decay);
  }
  if (spec.gate == GateMap::kGatedDelta) GatedDeltaGates(spec, w, gate, out.decay);
  if (HasGateMatrix(spec)) KdaGates(spec, w, out.decay);
  if (spec.core == Core::kDelta) Betas(spec, in, out.beta);
}

void AdvanceTails(const MixerSpec& spec, int64_t layer, const FrontRow& first, int64_t rows,
                  StatePool* states) {
  if (spec.conv.taps < 2) return;
  const MixerWeights none;
  Input inputs[kInputs];
  Inputs(spec, none, inputs);
  for (const Input& input : inputs) {
    ShortConvAdvance(ConvArgs(spec, input, layer, first, states), rows);
  }
}

void LightNetScan(int64_t tokens, int64_t begin, int64_t end, bool fresh, float* k,
                  int64_t k_stride, float* decay, int64_t decay_stride, float* log_sum) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = begin; i < end; ++i) {
      const mixer_math::LightNetGate gate =
          mixer_math::LightNetStep(k[t * k_stride + i], log_sum[i], fresh && t == 0);
      k[t * k_stride + i] = gate.key;
      decay[t * decay_stride + i] = gate.decay;
      log_sum[i] = gate.log_sum;
    }
  }
}

}  // namespace sluice
