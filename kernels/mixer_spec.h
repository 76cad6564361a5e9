// Describes a token mixer as data, which drives both backends' mixers. A mixer is three stages:
//   front  columns of the input projection, convolution, maps, position
//          -> per row q, k, v, and the decay of the state
//   core   takes the state through the rows: S <- D S + k v^T, o = q S, and its relatives
//   back   normaliser, skip, norm, output gate
// Names are the paper's (arXiv 2312.06635). Each family in engine/checkpoint/families says what its
// models compute.
#ifndef SLUICE_KERNELS_MIXER_SPEC_H_
#define SLUICE_KERNELS_MIXER_SPEC_H_

#include <algorithm>
#include <cstdint>

#include "kernels/tensor.h"

namespace sluice {

// The way in which the state moves. kernels/cores.h says which of them a device can run.
enum class Core : uint8_t {
  kLinear,     // S <- D S + k v^T, o = q S
  kDelta,      // S <- D S + k (beta (v - k D S))^T, o = q S
  kSoftmax,    // attention over kept keys and values
  kTwoPass,    // two linear states, the second read through a softmax of the first's output
  kSelective,  // a decay for each element of the state
  kModal,      // a sum of modes for each channel
  kShortConv,  // no state behind the convolution's tail: o = q conv(k v), all of one width
};

// D: what a state decays by between two tokens.
enum class Decay : uint8_t {
  kNone,   // 1
  kConst,  // one constant for each state head: MixerWeights::log_decay
  kHead,   // a number for each token and state head
  kKey,    // a number for each token, state head and key channel
};

// The way in which the decay is made of raw columns.
enum class GateMap : uint8_t {
  kNone,      // it is not: Decay::kNone or Decay::kConst
  kGla,       // log D = max(logsigmoid(gate c + gate_bias) / 16, log_gate_min), c: `gate_in`
  kHgrn2,     // D = lb + (1 - lb) sigmoid(c), k = (1 - lb) sigmoid(-c), c: `gate_in`
  kLightNet,  // z' = logaddexp(z, k), log D = z - z', k = exp(k - z')
  kMamba2,    // dt = clamp(softplus(c + gate_bias)), log D = -dt exp(a_log), v = dt v, c: `gate_in`
  kGatedDelta,  // log D = -exp(a_log) softplus(c + gate_bias), c: `gate_in`
  kKda,         // the same of the columns gate c, per key channel, with a_log per state head
  kKdaBounded,  // log D = log_gate_min sigmoid(exp(a_log) (gate c + gate_bias))
};

// Map on q and k per head, after the convolution. Appended to alone: the numbers are part of GLA's
// fingerprints.
enum class FeatureMap : uint8_t {
  kIdentity,
  kRelu,
  kSigmoid,
  kLogSigmoid,
  kSilu,
  kSquaredRelu,
  kGeluTanh,
  kGelu,        // with the error function
  kTanh,        //
  kElu,         //
  kEluPlusOne,  //
  kEluPlusTwo,  //
  kLeakyRelu,   // 0.01 x below 0
  kSine,        //
  kT2r,         // relu(W x)
  kProduct,     // (W1 x + b1) * (W2 x + b2)
  kHedgehog,    // softmax of [y, -y], y = 2 (W x + b): twice as wide
  kDpfp,        // y = [relu(x), relu(-x)] times y rolled by 1 to 4: eight times as wide
};

// Norm of q or k per head, after the map.
enum class QkNorm : uint8_t {
  kNone,
  kSum,     // x / (sum x + 1e-4)
  kL2,      // x / sqrt(sum x^2 + 1e-6)
  kSumAbs,  // x / max(sum |x|, 1e-6)
  kRms,     // x / sqrt(mean x^2 + qk_norm_eps) * MixerWeights::q_norm or k_norm
};

// True if a mapped channel of a head depends on the head's other channels.
inline bool MapsHeads(FeatureMap map, QkNorm norm) {
  return norm != QkNorm::kNone || map == FeatureMap::kT2r || map == FeatureMap::kProduct ||
         map == FeatureMap::kHedgehog || map == FeatureMap::kDpfp;
}

// The rotation of a head's q and k by the token's position in its sequence, counted from 0.
enum class Rope : uint8_t {
  kNone,
  kHalves,  // channel i with channel i + d / 2, by position * theta^(-2 i / d)
  kLrpe,    // [x cos(a), x sin(a)], a = position * MixerWeights::theta: twice as wide
  // Channel i with channel i + rope_dims / 2 of the first rope_dims, the others stay; by
  // a = position / rope_divisor * MixerWeights::theta[i], rounded to fp32 as the models' own code
  // does; cos(a) and sin(a) times rope_scale.
  kTable,
};

enum class NormKind : uint8_t {
  kNone,
  kRms,    // x / sqrt(mean x^2 + eps) * weight
  kLayer,  // (x - mean) / sqrt(variance + eps) * weight + bias
};

struct Norm {
  NormKind kind = NormKind::kRms;
  bool affine = true;  // it has a weight (and kLayer a bias); else 1 (and 0)
  float eps = 1e-6f;
};

// The span of one sum of the norm of o.
enum class NormSpan : uint8_t { kHead, kGroup, kAll };

// On a gate before it multiplies, or on the inner layer of an MLP.
enum class Act : uint8_t { kIdentity, kSilu, kSigmoid, kSquaredRelu };

// o + D x: what skips the state.
enum class Skip : uint8_t { kNone, kHead, kChannel };

// Columns of the input projection; width 0: there are none.
struct Columns {
  int64_t offset = 0;
  int64_t width = 0;

  int64_t end() const { return offset + width; }
};

// A depthwise causal convolution of each of the columns q, k and v; Core::kShortConv: of k v.
struct Conv {
  int64_t taps = 0;   // 0: none
  bool silu = true;   // its activation
  bool bias = false;  // it may have one: without values there is none
};

struct MixerSpec {
  Core core = Core::kLinear;
  Decay decay = Decay::kKey;
  GateMap gate = GateMap::kGla;

  // Heads of each. State head j reads k head j / (state_heads / k_heads) and v head likewise;
  // output head i reads state head i / (heads / state_heads) and q head i / (heads / q_heads).
  int64_t q_heads = 0;
  int64_t k_heads = 0;
  int64_t v_heads = 0;
  int64_t state_heads = 0;
  int64_t key_width = 0;  // of a head of q and of k as they are projected
  int64_t dk = 0;         // of a head of q and of k behind map and position
  int64_t dv = 0;

  int64_t in_dim = 0;           // columns of the input projection
  Columns q, k, v;              // (q_heads, key_width), (k_heads, key_width), (v_heads, dv)
  Columns gate_in;              // what the decay is made of
  Columns beta;                 // Core::kDelta: (state_heads); without them beta is beta_max
  Columns out_gate;             // (heads, dv), or the rank of MixerWeights::out_gate
  bool low_rank_gate = false;   // the output gate goes through MixerWeights::out_gate
  bool scaled_columns = false;  // those of the input projection have factors: in_scale

  Conv conv;
  FeatureMap q_map = FeatureMap::kIdentity;
  FeatureMap k_map = FeatureMap::kIdentity;
  FeatureMap v_map = FeatureMap::kIdentity;  // one of those of single elements
  QkNorm q_norm = QkNorm::kNone;
  QkNorm k_norm = QkNorm::kNone;
  Rope rope = Rope::kNone;
  float rope_theta = 10000.0f;
  int64_t rope_dims = 0;                    // Rope::kTable: even, at most dk
  float rope_divisor = 1.0f;                // Rope::kTable: of positions that were interpolated
  float rope_scale = 1.0f;                  // Rope::kTable
  float qk_norm_eps = 1e-6f;                // QkNorm::kRms
  NormSpan qk_norm_span = NormSpan::kHead;  // QkNorm::kRms: kAll norms all heads as one vector
  int64_t window = 0;  // Core::kSoftmax: a token sees itself and window - 1 before; 0: all
  float q_scale = 1.0f;
  bool clamp_log_gate = false;
  float log_gate_min = 0.0f;  // where clamp_log_gate; GateMap::kKdaBounded
  float beta_max = 1.0f;      // Core::kDelta: beta = beta_max sigmoid(its column)
  float dt_min = 0.0f;        // GateMap::kMamba2; dt_max may be infinite
  float dt_max = 0.0f;

  bool normaliser = false;  // o / (q z + 1e-10), z <- D z + k
  Skip skip = Skip::kNone;
  Norm out_norm;
  NormSpan norm_span = NormSpan::kHead;
  int64_t norm_groups = 1;        // NormSpan::kGroup
  bool gate_before_norm = false;  // the output gate multiplies o before the norm of it
  Act out_act = Act::kSilu;
  float out_scale = 1.0f;  // on what the mixer adds to the residual stream

  int64_t heads() const { return std::max(q_heads, state_heads); }
  int64_t out_dim() const { return heads() * dv; }
  bool gated() const { return out_gate.width > 0; }
};

// A mixer's weights as a backend holds them. What a spec has no use for is empty.
struct MixerWeights {
  Linear in;                                     // (in_dim, hidden)
  Vector in_scale;                               // (in_dim): scaled_columns, before the bias
  Vector in_bias;                                // (in_dim)
  Vector conv_q;                                 // (q columns, taps)
  Vector conv_k;                                 // (k columns, taps)
  Vector conv_v;                                 // (v columns, taps)
  Vector conv_q_bias, conv_k_bias, conv_v_bias;  // (columns)
  Linear gate;       // kGla, kKda: (state_heads * dk, columns of gate_in)
  Vector gate_bias;  // kGla, kKda: (state_heads * dk); kMamba2, kGatedDelta: dt_bias (state_heads)
  Vector log_decay;  // Decay::kConst: (state_heads)
  Vector lower_bound;   // kHgrn2: (state_heads * dk)
  Vector a_log;         // kMamba2, kGatedDelta, kKda: (state_heads)
  Linear q_map, k_map;  // maps with a matrix: (mapped width, key_width), one for all heads
  Vector q_map_bias, k_map_bias;    //
  Linear q_map2, k_map2;            // FeatureMap::kProduct: the second matrix
  Vector q_map2_bias, k_map2_bias;  //
  Vector theta;                     // kLrpe: (q_heads, key_width); kTable: (rope_dims / 2)
  Vector q_norm, k_norm;  // QkNorm::kRms: (dk), one for all heads; of NormSpan::kAll: (columns)
  Vector skip;            // D: (state_heads), or (state_heads * dv)
  Vector out_norm;        // (dv) where the norm spans a head, else (out_dim)
  Vector out_norm_bias;
  Linear out_gate;       // (out_dim, columns of out_gate), where the gate has a low rank
  Vector out_gate_bias;  // (out_dim), or empty
  Linear out;            // (hidden, out_dim)
  Vector out_bias;       // (hidden)
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_MIXER_SPEC_H_
