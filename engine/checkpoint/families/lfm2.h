// LFM2: gated short convolutions and softmax attention.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_LFM2_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_LFM2_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kLfm2Family;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_LFM2_H_
