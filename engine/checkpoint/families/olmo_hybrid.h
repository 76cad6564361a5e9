// Olmo Hybrid: gated DeltaNet and softmax attention.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_OLMO_HYBRID_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_OLMO_HYBRID_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kOlmoHybridFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_OLMO_HYBRID_H_
