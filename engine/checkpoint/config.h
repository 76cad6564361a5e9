// config.json of a model: what it is, by its family (families.h).
#ifndef SLUICE_ENGINE_CHECKPOINT_CONFIG_H_
#define SLUICE_ENGINE_CHECKPOINT_CONFIG_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/model_spec.h"

namespace sluice {

struct Family;

// What the tensors of a softmax layer depend on beside its MixerSpec.
struct AttentionConfig {
  bool qkv_bias = false;
  bool out_bias = false;
  std::vector<float> frequencies;  // MixerWeights::theta
  // Names of the norms of q and k, and of the output's projection.
  const char* q_norm = "q_norm.weight";
  const char* k_norm = "k_norm.weight";
  const char* out = "o_proj";
  bool zero_centred_norms = false;  // files hold w of 1 + w
  // Factors of the layer's input, and of k.
  float in_scale = 1.0f;
  float key_scale = 1.0f;
};

// The same of the Mamba-2 layers of hybrids, which are alike.
struct MambaConfig {
  bool in_bias = false;
  bool out_bias = false;
  // Factors of the layer's input, and of the parts z, x, B, C and dt of its projection.
  float in_scale = 1.0f;
  std::array<float, 5> part_scales = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
};

struct ModelConfig {
  const Family* family = nullptr;  // set whenever a config was read
  const char* model_type() const;  // the family's name
  ModelSpec spec;
  // Everything in the config that changes what the weights compute, in a form that does not depend
  // on how the file spells it: a part of the fingerprint. Token ids are not in it, since they do
  // not change a state.
  std::string identity;
  bool tied = false;  // lm_head is the embeddings
  // Facts beside the spec on which some families' tensors depend.
  bool biases = false;                           // linear layers have biases
  bool lower_bounds = false;                     // hgrn2
  bool tied_feature_maps = false;                // linear_attn: q's and k's are one
  std::map<int64_t, AttentionConfig> attention;  // softmax layers, by layer
  MambaConfig mamba;
  bool text_section = false;  // a wrapper's: the text model's fields are in `text_config`
  // A missing token id stands for these, if the vocabulary has them.
  int32_t default_bos = 1;
  int32_t default_eos = 2;
  std::optional<int32_t> bos_token_id;
  std::vector<int32_t> eos_token_ids;  // empty: the model never ends by itself
  // For people: fields that promise what their maker's class does not do, and parts of the files
  // that are not served.
  std::vector<std::string> notes;
  // What the model was trained for. For information: only states that grow have a limit.
  int64_t max_position_embeddings = 0;
};

// Reads the text of a config.json. Missing fields get the defaults of the family's class, unknown
// ones are ignored. Every number is bounded, and so are the parameters and the state in all, so
// that products of sizes, times a few bytes, fit in 64 bits. INVALID_ARGUMENT names `file_name`,
// the field and the rule of what is refused first; `refusals` gets a line for each.
absl::StatusOr<ModelConfig> ParseConfig(absl::string_view json, absl::string_view file_name,
                                        std::vector<std::string>* refusals = nullptr);

// Reads generation_config.json: its eos_token_id, where it has one, replaces that of `config`, as
// in transformers. (There a file without one means that nothing ends a text. Here config.json's
// stays: no text is better endless.)
absl::Status ApplyGenerationConfig(absl::string_view json, absl::string_view file_name,
                                   ModelConfig* config);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_CONFIG_H_
