// The tokenizer of a model directory, checked against the model's config.
#ifndef SLUICE_ENGINE_MODEL_TOKENIZER_H_
#define SLUICE_ENGINE_MODEL_TOKENIZER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/checkpoint/config.h"
#include "engine/tokenizer/tokenizer.h"

namespace sluice {

// `choice`: empty for the tokenizer in the model's directory `dir`, "none" for token ids alone,
// else another directory's. Errors as Tokenizer::Load's; a vocabulary with ids that the model does
// not have is one of them.
inline absl::StatusOr<std::unique_ptr<const Tokenizer>> LoadModelTokenizer(
    const std::string& dir, const ModelConfig& config, const std::string& choice = "") {
  TokenizerOptions options;
  options.vocab_size = static_cast<int32_t>(config.spec.vocab);
  options.bos_id = config.bos_token_id;
  if (!config.eos_token_ids.empty()) options.eos_id = config.eos_token_ids.front();
  if (choice == "none") return Tokenizer::None(options);
  return Tokenizer::Load(choice.empty() ? dir : choice, options);
}

}  // namespace sluice

#endif  // SLUICE_ENGINE_MODEL_TOKENIZER_H_
