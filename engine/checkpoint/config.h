// config.json of a GLA model, as flash-linear-attention writes it.
#ifndef SLUICE_ENGINE_CHECKPOINT_CONFIG_H_
#define SLUICE_ENGINE_CHECKPOINT_CONFIG_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/ops.h"

namespace sluice {

struct ModelConfig {
  ModelShape shape;
  bool tied = false;             // lm_head is the embeddings
  bool head_norm_affine = true;  // the per-head norm has a weight
  std::optional<int32_t> bos_token_id;
  std::vector<int32_t> eos_token_ids;   // empty: the model never ends by itself
  int64_t max_position_embeddings = 0;  // for information: a GLA layer has no limit
};

// Reads the text of a config.json. Missing fields get the defaults of GLAConfig, unknown ones are
// ignored. Every number is bounded, and so are the parameters and the state in all, so that
// products of the shape's sizes, times a few bytes, fit in 64 bits. INVALID_ARGUMENT names
// `file_name`, the field and the rule.
absl::StatusOr<ModelConfig> ParseConfig(absl::string_view json, absl::string_view file_name);

// Reads generation_config.json: its eos_token_id, where it has one, replaces that of `config`, as
// in transformers. (There a file without one means that nothing ends a text. Here config.json's
// stays: no text is better endless.)
absl::Status ApplyGenerationConfig(absl::string_view json, absl::string_view file_name,
                                   ModelConfig* config);

// Parameters of a model of this shape; `lm_head` counts when it is a matrix of its own.
int64_t CountParameters(const ModelShape& shape, bool head_norm_affine, bool lm_head);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_CONFIG_H_
