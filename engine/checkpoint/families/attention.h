// Softmax attention as the families have it: grouped queries, rotary positions, a window.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_ATTENTION_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_ATTENTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/checkpoint/config.h"
#include "engine/checkpoint/config_reader.h"
#include "engine/checkpoint/tensor_table.h"
#include "kernels/mixer_spec.h"

namespace sluice {

// How a head's channels turn with the position.
struct RopeTable {
  std::vector<float> frequencies;  // radians a token, of each pair
  float scale = 1.0f;              // of cos and sin
  std::string identity;            // what a fingerprint says of it
};

// theta^(-2 i / dim) for i in [0, dim / 2). `dim` is even.
RopeTable DefaultRope(int64_t dim, double theta);

// rope_theta and rope_scaling, or rope_parameters that transformers 5 writes instead: the kinds
// default, linear, llama3 and yarn. Others are refused by name, since their frequencies change with
// the length of the text. `max_positions` is the config's max_position_embeddings.
RopeTable ReadRope(ConfigReader* reader, int64_t dim, double default_theta, int64_t max_positions);

// Channels of a head that turn, its first partial_rotary_factor: even, at least 2. The field is
// config.json's or rope_parameters'.
int64_t ReadRotaryDims(ConfigReader* reader, int64_t head_dim, double default_part);
// The same of a known part.
int64_t RotaryDims(ConfigReader* reader, int64_t head_dim, double part);

struct AttentionShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t head_dim = 0;
  int64_t window = 0;  // 0: none
  bool qk_norm = false;
  bool norms_all_heads = false;  // each of q and k is normed as one vector
  float qk_norm_eps = 1e-6f;
  bool qkv_bias = false;
  bool out_bias = false;
  bool gated = false;     // q_proj has, behind each head's query, as many rows of its output gate
  float scale = 0.0f;     // of the scores; 0: head_dim^-1/2
  float in_scale = 1.0f;  // of the layer's input
  float key_scale = 1.0f;
  float out_scale = 1.0f;  // of what the layer adds
  RopeTable rope;          // without frequencies: no positions
};

MixerSpec AttentionMixer(const AttentionShape& shape);
// For ModelConfig::attention.
AttentionConfig AttentionParts(const AttentionShape& shape);
// " heads=4 kv_heads=2 ..."
std::string AttentionIdentity(const AttentionShape& shape);

// q_proj, k_proj, v_proj, o_proj, and what else the layer has.
void AttentionTensors(const MixerSpec& m, const AttentionConfig& parts, int64_t hidden,
                      TensorScope scope);

// Refuses heads and head_dim that no layer can have. `heads_name` and the like are fields.
void CheckAttention(const AttentionShape& shape, const char* heads_name, const char* kv_heads_name,
                    ConfigReader* reader);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_ATTENTION_H_
