// Nemotron-H and Nemotron Nano without experts: Mamba-2, softmax attention and MLPs.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_NEMOTRON_H_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_NEMOTRON_H_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kNemotronHFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_NEMOTRON_H_H_
