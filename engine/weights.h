// The model's weights as a backend holds them, one shape comment per tensor. Names are the
// checkpoint's.
#ifndef SLUICE_ENGINE_WEIGHTS_H_
#define SLUICE_ENGINE_WEIGHTS_H_

#include <vector>

#include "kernels/ops.h"

namespace sluice {

struct LayerWeights {
  Vector attn_norm;  // (hidden)
  Linear mixer_in;   // (mixer_in_dim, hidden): q_proj | k_proj | v_proj | gk_proj.0 | g_proj
  Linear gate;       // (kv_heads * dk, gate_rank): gk_proj.1
  Vector gate_bias;  // (kv_heads * dk): gk_proj.1.bias
  Vector conv_q;     // (heads * dk, conv_size), empty without short convolution
  Vector conv_k;     // (kv_heads * dk, conv_size)
  Vector conv_v;     // (kv_heads * dv, conv_size)
  Vector head_norm;  // (dv): g_norm or g_norm_swish_gate; empty without elementwise_affine
  Linear mixer_out;  // (hidden, heads * dv): o_proj
  Vector mlp_norm;   // (hidden)
  Linear gate_up;    // (2 * intermediate, hidden): mlp.gate_proj, mlp.up_proj
  Linear down;       // (hidden, intermediate): mlp.down_proj
};

struct Weights {
  Linear embeddings;  // (vocab, hidden)
  std::vector<LayerWeights> layers;
  Vector norm;     // (hidden)
  Linear lm_head;  // (vocab, hidden); the embeddings' handle when tied
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_WEIGHTS_H_
