// Gated DeltaNet as flash-linear-attention's GatedDeltaNetForCausalLM has it.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_GATED_DELTANET_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_GATED_DELTANET_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kGatedDeltaNetFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_GATED_DELTANET_H_
