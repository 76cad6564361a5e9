// /tokenize, /detokenize and /tokenizer_info, as vLLM has them.
#ifndef SLUICE_SERVER_HTTP_TOKENS_JSON_H_
#define SLUICE_SERVER_HTTP_TOKENS_JSON_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/http/chat_template.h"
#include "server/validate.h"
#include "sluice/v1/model.pb.h"

namespace sluice {

// The answer to {"prompt": TEXT} or {"messages": [...]}: {"count", "max_model_len", "tokens",
// "token_strs"}. Errors are those of Tokenize, and of the body. Pure.
absl::StatusOr<std::string> TokenizeJson(absl::string_view body, const ChatTemplate& chat_template,
                                         const RequestBounds& bounds, const Tokenizer& tokenizer,
                                         const v1::Model& model);
// The answer to {"tokens": [ids]}: {"prompt": TEXT}.
absl::StatusOr<std::string> DetokenizeJson(absl::string_view body, const RequestBounds& bounds,
                                           const Tokenizer& tokenizer);
std::string TokenizerInfoJson(const Tokenizer& tokenizer, const v1::Model& model);

// The most tokens of a sequence, as JSON: null where states have one size and there is no bound.
std::string ContextLengthJson(const v1::Model& model);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_TOKENS_JSON_H_
