// RetNet (arXiv 2307.08621) as flash-linear-attention's RetNetForCausalLM has it.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_RETNET_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_RETNET_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kRetNetFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_RETNET_H_
