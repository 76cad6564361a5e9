// LightNet (arXiv 2405.21022) as flash-linear-attention's LightNetForCausalLM has it.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_LIGHTNET_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_LIGHTNET_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kLightNetFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_LIGHTNET_H_
