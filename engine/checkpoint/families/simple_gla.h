// Simple GLA, the layer of flash-linear-attention, in that library's decoder.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_SIMPLE_GLA_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_SIMPLE_GLA_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kSimpleGlaFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_SIMPLE_GLA_H_
