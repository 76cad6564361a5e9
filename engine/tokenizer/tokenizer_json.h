// Reads tokenizer.json, the format of Hugging Face `tokenizers`.
#ifndef SLUICE_ENGINE_TOKENIZER_TOKENIZER_JSON_H_
#define SLUICE_ENGINE_TOKENIZER_TOKENIZER_JSON_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer_parts.h"

namespace sluice {

// Models of type BPE. "truncation" and "padding" are not read: a server does neither to a prompt.
// INVALID_ARGUMENT names the field and the rule.
absl::StatusOr<TokenizerParts> ReadTokenizerJson(absl::string_view bytes,
                                                 const TokenizerOptions& options);

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_TOKENIZER_JSON_H_
