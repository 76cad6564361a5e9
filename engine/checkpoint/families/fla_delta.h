// The parts that flash-linear-attention's models of the delta rule share: delta_net, gated_deltanet
// and kda.
// Per state head, with k of unit length:
//   S <- D S,   u = beta (v - S^T k),   S <- S + k u^T,   o = (dk^-1/2 q)^T S
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_FLA_DELTA_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_FLA_DELTA_H_

#include <cstdint>
#include <string>

#include "engine/checkpoint/families/fla_decoder.h"

namespace sluice {

// Heads of q and k, and of v: value head j reads query and key head j / (v_heads / heads).
struct FlaDeltaShape {
  int64_t heads = 0;
  int64_t v_heads = 0;  // a multiple of heads
  int64_t dk = 0;
  int64_t dv = 0;
  int64_t conv_size = 0;              // 0: no short convolution
  bool negative_eigenvalues = false;  // beta reaches 2

  // Ends an identity.
  std::string Identity() const;
};

// use_short_conv, conv_size and allow_neg_eigval, which all three have.
void ReadFlaDelta(ConfigReader* reader, FlaDeltaShape* shape);
// num_heads, num_v_heads, head_dim and expand_v, which gated_deltanet and kda have.
void ReadFlaDeltaHeads(ConfigReader* reader, int64_t default_heads, int64_t default_head_dim,
                       double default_expand_v, FlaDeltaShape* shape);

// The mixer but for its decay, beta's columns and its output gate: columns q, k and v of the input
// projection, which the caller goes on with; SiLU on all three, then unit q and k.
MixerSpec FlaDeltaMixer(const FlaDecoder& decoder, const FlaDeltaShape& shape);

// q_proj, k_proj and v_proj. What else makes up MixerWeights::in follows, in the columns' order.
void AddFlaDeltaInputs(const MixerSpec& m, int64_t hidden, TensorScope* scope);
// Convolutions (with their biases, where a file has them), norm and o_proj.
void AddFlaDeltaRest(const MixerSpec& m, int64_t hidden, const TensorSource& files,
                     const std::string& prefix, TensorScope* scope);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_FLA_DELTA_H_
