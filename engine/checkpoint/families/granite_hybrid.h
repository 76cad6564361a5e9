// Granite 4.0 without experts: Mamba-2 and softmax attention.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_GRANITE_HYBRID_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_GRANITE_HYBRID_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kGraniteHybridFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_GRANITE_HYBRID_H_
