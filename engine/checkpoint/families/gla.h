// Gated Linear Attention (arXiv 2312.06635) as flash-linear-attention's GLAForCausalLM has it.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_GLA_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_GLA_H_

#include <cstdint>

#include "engine/checkpoint/families.h"
#include "kernels/model_spec.h"

namespace sluice {

extern const Family kGlaFamily;

// The numbers that a GLA model's sizes follow from.
struct GlaShape {
  int64_t vocab = 0;
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t heads = 0;         // query heads
  int64_t kv_heads = 0;      // divides heads; one state per kv head
  int64_t dk = 0;            // per head
  int64_t dv = 0;            // per head
  int64_t gate_rank = 16;    // inner width of the log gate's two matrices
  int64_t intermediate = 0;  // of the SwiGLU
  int64_t conv_size = 0;     // taps of the short convolution on q, k, v; 0: none
  FeatureMap feature_map = FeatureMap::kIdentity;
  bool output_gate = true;
  bool clamp_log_gate = false;
  float log_gate_min = 0.0f;  // used when clamp_log_gate
  float norm_eps = 1e-6f;
  bool head_norm_affine = true;  // the per-head norm has a weight

  int64_t q_dim() const { return heads * dk; }
  int64_t k_dim() const { return kv_heads * dk; }
  int64_t v_dim() const { return kv_heads * dv; }
  int64_t out_dim() const { return heads * dv; }
  // Columns of the mixer's input projection: q | k | v | low-rank gate | output gate (if any).
  int64_t mixer_in_dim() const {
    return q_dim() + k_dim() + v_dim() + gate_rank + (output_gate ? out_dim() : 0);
  }

  // Each layer: a branch with the mixer, a branch with the MLP.
  ModelSpec Spec() const;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_GLA_H_
