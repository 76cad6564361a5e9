// The softmax layers that flash-linear-attention's models may have in place of their own mixers:
// config.json's `attn`, null, an object or a list of them, each for some layers.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_FLA_ATTENTION_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_FLA_ATTENTION_H_

#include <cstdint>
#include <map>
#include <string>

#include "engine/checkpoint/families/attention.h"

namespace sluice {

// By layer.
using FlaAttention = std::map<int64_t, AttentionShape>;

// Also fills the config's `attention`.
FlaAttention ReadFlaAttention(ConfigReader* reader, int64_t hidden, int64_t layers,
                              ModelConfig* config);

// The first branch's mixer of each of these layers becomes the attention's.
void ApplyFlaAttention(const FlaAttention& attention, ModelSpec* spec);
// What a fingerprint says of them; "" of none.
std::string FlaAttentionIdentity(const FlaAttention& attention);

// Heads of a layer whose class makes head_dim of hidden_size; refuses what does not divide.
int64_t FlaHeadDim(int64_t hidden, int64_t heads, ConfigReader* reader);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_FLA_ATTENTION_H_
