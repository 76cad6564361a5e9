// What the decoders of Hugging Face transformers share: fields of the config, the tensors outside
// of the layers, gated MLPs.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_HF_DECODER_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_HF_DECODER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/checkpoint/config.h"
#include "engine/checkpoint/config_reader.h"
#include "engine/checkpoint/families/attention.h"
#include "engine/checkpoint/tensor_table.h"

namespace sluice {

// What a class has where config.json says nothing.
struct HfDefaults {
  int64_t vocab = 32000;
  int64_t hidden = 4096;
  int64_t layers = 32;
  int64_t intermediate = 11008;
  int64_t heads = 32;
  int64_t kv_heads = 0;  // 0: as many as heads
  int64_t head_dim = 0;  // 0: hidden_size by heads
  int64_t max_positions = 2048;
  double norm_eps = 1e-6;
  const char* eps_name = "rms_norm_eps";
  bool tied = false;
};

struct HfDecoder {
  int64_t vocab = 0;
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  float norm_eps = 1e-6f;
  AttentionShape attention;  // without positions

  // A model without layers yet, its norms RMS.
  ModelSpec Outside() const;
  Norm norm() const { return {.eps = norm_eps}; }
  // Begins an identity: "llama vocab=...".
  std::string Identity(const char* model_type) const;
};

// Reads and checks the fields that all have, and `tied` and `max_position_embeddings` of `config`.
HfDecoder ReadHfDecoder(ConfigReader* reader, const HfDefaults& defaults, ModelConfig* config);

// These classes have no tokens of their own.
void NoDefaultTokens(ModelConfig* config);

enum class LayerKind : uint8_t { kLinear, kSoftmax, kMlp };

// A list of one word for each layer. `missing`: there is none, or it is null.
std::vector<LayerKind> ReadLayerKinds(ConfigReader* reader, FieldNames names, int64_t layers,
                                      absl::Span<const NamedValue<LayerKind>> words,
                                      absl::string_view allowed,
                                      const std::vector<LayerKind>& missing);
// A list of different layers' numbers; null or missing: none.
std::vector<int64_t> ReadLayerIndices(ConfigReader* reader, const char* name, int64_t layers);
// "linear,softmax,..."
std::string LayerKindsText(const std::vector<LayerKind>& kinds);

// A gated MLP: `gate`.weight, `up`.weight, `down`.weight, and their biases.
void AddGatedMlp(const MlpSpec& mlp, const char* gate, const char* up, const char* down, bool bias,
                 int64_t hidden, TensorScope scope);

// lm_head.weight, which the files of a tied model may lack.
void AddHead(const ModelConfig& config, const TensorSource& files, TensorScope* outside);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_HF_DECODER_H_
