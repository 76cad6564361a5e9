// Bamba: Mamba-2 and softmax attention.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_BAMBA_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_BAMBA_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kBambaFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_BAMBA_H_
