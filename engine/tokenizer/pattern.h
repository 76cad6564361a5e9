// A pattern that text is split on: a fixed string or a regular expression.
#ifndef SLUICE_ENGINE_TOKENIZER_PATTERN_H_
#define SLUICE_ENGINE_TOKENIZER_PATTERN_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

struct TextRange {
  size_t begin;
  size_t end;
};

// Immutable; copies share the compiled expression. Any thread.
class Pattern {
 public:
  static Pattern Literal(absl::string_view text);

  // `source` is in the syntax of Hugging Face `tokenizers` (Oniguruma, see regex_syntax.h).
  // INVALID_ARGUMENT says what is wrong with it.
  static absl::StatusOr<Pattern> Regex(absl::string_view source);

  // GPT-2's way to cut words, numbers and white space; a number; a character of a word (as Rust
  // defines it).
  static Pattern Gpt2();
  static Pattern Number();
  static Pattern WordCharacter();

  // Appends the matches in `text` (valid UTF-8), from left to right, none overlapping. Should
  // matching become too expensive, the matches found so far are all.
  void FindAll(absl::string_view text, std::vector<TextRange>* matches) const;

 private:
  struct Compiled;

  Pattern() = default;
  static Pattern Trusted(absl::string_view source);
  void FindLiteral(absl::string_view text, std::vector<TextRange>* matches) const;
  void FindRegex(absl::string_view text, std::vector<TextRange>* matches) const;

  std::string literal_;  // used without `compiled_`
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_PATTERN_H_
