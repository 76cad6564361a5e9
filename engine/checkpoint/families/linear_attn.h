// Linear attention (arXiv 2006.16236) with the feature maps of flash-linear-attention's
// LinearAttentionForCausalLM, Hedgehog (arXiv 2402.04347) among them.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_LINEAR_ATTN_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_LINEAR_ATTN_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kLinearAttnFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_LINEAR_ATTN_H_
