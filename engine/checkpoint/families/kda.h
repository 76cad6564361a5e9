// Kimi Delta Attention as flash-linear-attention's KDAForCausalLM has it.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_KDA_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_KDA_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kKdaFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_KDA_H_
