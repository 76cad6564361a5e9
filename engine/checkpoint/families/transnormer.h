// TransNormerLLM (arXiv 2307.14995) as its makers' TransnormerForCausalLM has it.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_TRANSNORMER_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_TRANSNORMER_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kTransNormerFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_TRANSNORMER_H_
