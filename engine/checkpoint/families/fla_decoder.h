// What flash-linear-attention's models share, whatever their mixer is: x += mixer(norm(x)), then
// x += SwiGLU(norm(x)) in each layer, without biases. Some layers may have softmax attention in
// place of the model's mixer.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_FLA_DECODER_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_FLA_DECODER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/checkpoint/config.h"
#include "engine/checkpoint/config_reader.h"
#include "engine/checkpoint/families/fla_attention.h"
#include "engine/checkpoint/tensor_table.h"
#include "kernels/model_spec.h"

namespace sluice {

struct FlaDecoder {
  int64_t vocab = 0;
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  float norm_eps = 1e-6f;
  bool affine = true;      // the mixer's own norm has a weight
  FlaAttention attention;  // of the layers that have it

  // Both of a model whose other layers all have mixer `m`, but for what `m`'s caller changes.
  ModelSpec Spec(const MixerSpec& m) const;
  // Begins an identity: "retnet vocab=...".
  std::string Identity(const char* model_type) const;
};

// Reads and checks the fields that all have; refuses what is not served.
FlaDecoder ReadFlaDecoder(ConfigReader* reader, double hidden_ratio, ModelConfig* config,
                          int64_t default_layers = 24);

// Columns per head of a projection that is `field` (missing: `expand`) times as wide as the model.
int64_t ReadFlaHeadWidth(ConfigReader* reader, const char* field, double expand,
                         const FlaDecoder& decoder, int64_t heads);

// Heads of the mixers that have num_heads, num_kv_heads, expand_k and expand_v.
struct FlaHeads {
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t dk = 0;        // per head
  int64_t dv = 0;        // per head
};
FlaHeads ReadFlaHeads(ConfigReader* reader, const FlaDecoder& decoder, int64_t default_heads,
                      double default_expand_k, double default_expand_v);

// Every tensor outside the mixers, those of softmax layers, and those that `mixer` adds for each
// other layer's (null: there is none).
using AddMixerTensors = std::function<void(int64_t layer, const MixerSpec& mixer,
                                           const std::string& prefix, TensorScope scope)>;
void FlaTensors(const ModelConfig& config, const TensorSource& files, const AddMixerTensors& mixer,
                TensorTable* table);

// The short convolutions of q, k and v under these letters: "q_conv1d.weight".
void AddShortConvs(const MixerSpec& m, const char* q, const char* k, const char* v,
                   TensorScope* scope);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_FLA_DECODER_H_
