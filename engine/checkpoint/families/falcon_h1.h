// Falcon-H1: Mamba-2 and softmax attention beside each other in every layer.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_FALCON_H1_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_FALCON_H1_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kFalconH1Family;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_FALCON_H1_H_
