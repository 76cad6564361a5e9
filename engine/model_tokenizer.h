// The tokenizer of a model directory, checked against the model's config.
#ifndef SLUICE_ENGINE_MODEL_TOKENIZER_H_
#define SLUICE_ENGINE_MODEL_TOKENIZER_H_

#include <algorithm>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
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

// What a person should know of the tokenizer beside the model; empty: nothing.
inline std::string TokenizerNote(const Tokenizer& tokenizer) {
  if (tokenizer.left_out() == 0) return "";
  return absl::StrCat("pieces of the tokenizer with ids from ", tokenizer.vocab_size(),
                      " on, the vocab_size of the model, are left out: ", tokenizer.left_out());
}

// The model's spec, which samples no token behind the tokenizer's last piece and the last of the
// tokens that end a text. Ids in gaps of the vocabulary are sampled: only those behind it pad.
inline ModelSpec SpecWithTokenizer(const ModelConfig& config, const Tokenizer& tokenizer) {
  ModelSpec spec = config.spec;
  if (!tokenizer.has_text()) return spec;
  int64_t tokens = tokenizer.pieces();
  for (const int32_t id : config.eos_token_ids) tokens = std::max<int64_t>(tokens, id + 1);
  spec.first_unsampled = std::min(SampledTokens(spec), tokens);
  return spec;
}

}  // namespace sluice

#endif  // SLUICE_ENGINE_MODEL_TOKENIZER_H_
