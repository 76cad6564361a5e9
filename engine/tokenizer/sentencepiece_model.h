// Reads tokenizer.model, SentencePiece's format.
#ifndef SLUICE_ENGINE_TOKENIZER_SENTENCEPIECE_MODEL_H_
#define SLUICE_ENGINE_TOKENIZER_SENTENCEPIECE_MODEL_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer_parts.h"

namespace sluice {

// Models of type BPE with the identity normalizer. BOS goes in front of a text, as Llama does it:
// the options' or, when they name none, the file's. INVALID_ARGUMENT names the field and the rule.
absl::StatusOr<TokenizerParts> ReadSentencePieceModel(absl::string_view bytes,
                                                      const TokenizerOptions& options);

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_SENTENCEPIECE_MODEL_H_
