// DeltaNet as flash-linear-attention's DeltaNetForCausalLM has it.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_DELTA_NET_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_DELTA_NET_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kDeltaNetFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_DELTA_NET_H_
