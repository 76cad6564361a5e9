// The regular expressions of tokenizer.json are in Oniguruma's syntax; ours run in PCRE2.
#ifndef SLUICE_ENGINE_TOKENIZER_REGEX_SYNTAX_H_
#define SLUICE_ENGINE_TOKENIZER_REGEX_SYNTAX_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

// Rewrites `source` for PCRE2 (UTF, UCP, MULTILINE) so that it matches the same text. What the two
// read differently and tokenizers have no need of (backreferences, recursion, callouts, nested
// classes, \b, \h ...) is INVALID_ARGUMENT. `source` is valid UTF-8 of at most kMaxRegexSize bytes.
absl::StatusOr<std::string> TranslateRegex(absl::string_view source);

inline constexpr size_t kMaxRegexSize = 16 * 1024;

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_REGEX_SYNTAX_H_
