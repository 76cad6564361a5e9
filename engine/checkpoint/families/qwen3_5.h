// Qwen3.5 and its successors with dense MLPs: gated DeltaNet and gated softmax attention.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_QWEN3_5_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_QWEN3_5_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kQwen35Family;
extern const Family kQwen35TextFamily;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_QWEN3_5_H_
