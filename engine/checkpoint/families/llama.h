// Decoders of LLaMA's layout as transformers has them: softmax attention and a SwiGLU in each
// layer, norms before both.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_LLAMA_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_LLAMA_H_

#include "engine/checkpoint/families.h"

namespace sluice {

extern const Family kLlamaFamily;
extern const Family kMistralFamily;
extern const Family kQwen2Family;
extern const Family kQwen3Family;

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_LLAMA_H_
