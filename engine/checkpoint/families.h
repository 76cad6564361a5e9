// The kinds of models that are served, one file of families/ each: what a config.json means, and
// which tensors the model has.
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/checkpoint/config.h"
#include "engine/checkpoint/config_reader.h"
#include "engine/checkpoint/tensor_table.h"

namespace sluice {

struct Family {
  const char* model_type;  // of config.json
  // Fills the config's spec, identity and tied, or refuses a field. Token ids are read elsewhere.
  void (*parse)(ConfigReader* reader, ModelConfig* config);
  // Every tensor of the model, in model order. `files` says how the file spells what has more than
  // one spelling.
  void (*tensors)(const ModelConfig& config, const TensorSource& files, TensorTable* table);
};

absl::Span<const Family* const> Families();

// Null: none has this model_type.
const Family* FindFamily(absl::string_view model_type);

// For model types that people ask for and that are not served: the reason. Null: none is known.
const char* WhyNotServed(absl::string_view model_type);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_H_
