// HGRN2 (arXiv 2404.07904) as flash-linear-attention's HGRN2ForCausalLM has it.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_HGRN2_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_HGRN2_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kHgrn2Family;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_HGRN2_H_
