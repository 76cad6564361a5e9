// The softmax transformer of flash-linear-attention, TransformerForCausalLM: the baseline beside
// its linear models.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_TRANSFORMER_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_TRANSFORMER_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kTransformerFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_TRANSFORMER_H_
