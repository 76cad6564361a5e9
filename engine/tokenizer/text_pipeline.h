// The steps between a text and the pieces that byte pair encoding works on: normalizers and
// pre-tokenizers.
#ifndef SLUICE_ENGINE_TOKENIZER_TEXT_PIPELINE_H_
#define SLUICE_ENGINE_TOKENIZER_TEXT_PIPELINE_H_

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/unicode_form.h"

namespace sluice {

// The place of a piece in the text that is encoded.
enum class PiecePosition : uint8_t {
  kStart,      // at its very beginning
  kContinued,  // there too, but the text continues an earlier one
  kInside,
};

struct TextPiece {
  absl::string_view text;
  PiecePosition position;
};

// The fate of the matches that a text is split on.
enum class SplitBehavior : uint8_t {
  kRemoved,
  kIsolated,            // each a piece
  kMergedWithPrevious,  // the end of the piece in front
  kMergedWithNext,      // the start of the piece behind
  kContiguous,          // neighbouring matches are one piece
};

// Puts `prefix` in front of each piece, but for the beginning of a text that is continued.
struct PrefixStep {
  std::string prefix;
  bool text_start_only = false;  // only where the text starts
  bool unless_there = false;     // not if the piece begins with it
};

// Replaces each match.
struct ReplaceStep {
  Pattern pattern;
  std::string replacement;
};

// Cuts each piece into several.
struct SplitStep {
  Pattern pattern;
  SplitBehavior behavior;
  bool invert = false;  // what does not match is the match
};

// SentencePiece's remove_extra_whitespaces: no spaces at either end, single ones between. Where a
// text is continued, one at its start stays. What stands for a space counts as one at the end.
struct SqueezeSpacesStep {
  std::string space_symbol;
};

// Unicode's normalization.
struct UnicodeStep {
  UnicodeForm form;
};

// Each byte becomes its character of the byte-level alphabet (byte_level.h).
struct ByteLevelStep {};

using TextStep =
    std::variant<UnicodeStep, ByteLevelStep, PrefixStep, ReplaceStep, SplitStep, SqueezeSpacesStep>;

class TextPipeline {
 public:
  TextPipeline() = default;
  explicit TextPipeline(std::vector<TextStep> steps) : steps_(std::move(steps)) {}

  bool empty() const { return steps_.empty(); }

  // Replaces `pieces` by what the steps make of them, empty pieces left out. Texts that a step
  // makes live in `storage`.
  void Apply(std::vector<TextPiece>* pieces, std::deque<std::string>* storage) const;

 private:
  std::vector<TextStep> steps_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_TEXT_PIPELINE_H_
