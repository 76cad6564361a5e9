// Mamba-2 (arXiv 2405.21060) in the layouts of transformers, flash-linear-attention and
// state-spaces.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_MAMBA2_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_MAMBA2_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kMamba2Family;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_MAMBA2_H_
