#include "engine/tokenizer/text_pipeline.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/tokenizer/byte_level.h"

namespace sluice {
namespace {

using Pieces = std::vector<TextPiece>;
using Storage = std::deque<std::string>;

void Emit(TextPiece piece, Pieces* out) {
  if (!piece.text.empty()) out->push_back(piece);
}

void ApplyStep(const UnicodeStep& step, const TextPiece& piece, Storage* storage, Pieces* out) {
  if (step.form == UnicodeForm::kNfc && IsPlainNfc(piece.text)) return Emit(piece, out);
  Emit({storage->emplace_back(ToUnicodeForm(step.form, piece.text)), piece.position}, out);
}

void ApplyStep(const ByteLevelStep&, const TextPiece& piece, Storage* storage, Pieces* out) {
  Emit({storage->emplace_back(ByteLevelText(piece.text)), piece.position}, out);
}

void ApplyStep(const PrefixStep& step, const TextPiece& piece, Storage* storage, Pieces* out) {
  const bool wanted = piece.position == PiecePosition::kStart ||
                      (piece.position == PiecePosition::kInside && !step.text_start_only);
  if (!wanted || (step.unless_there && absl::StartsWith(piece.text, step.prefix))) {
    return Emit(piece, out);
  }
  Emit({storage->emplace_back(absl::StrCat(step.prefix, piece.text)), piece.position}, out);
}

void ApplyStep(const ReplaceStep& step, const TextPiece& piece, Storage* storage, Pieces* out) {
  std::vector<TextRange> matches;
  step.pattern.FindAll(piece.text, &matches);
  if (matches.empty()) return Emit(piece, out);
  std::string& text = storage->emplace_back();
  text.reserve(piece.text.size() + matches.size() * step.replacement.size());
  size_t done = 0;
  for (const TextRange& match : matches) {
    absl::StrAppend(&text, piece.text.substr(done, match.begin - done), step.replacement);
    done = match.end;
  }
  absl::StrAppend(&text, piece.text.substr(done));
  Emit({text, piece.position}, out);
}

struct MarkedRange {
  TextRange range;
  bool match;
};

// The matches and what lies between them, covering all of `text`.
std::vector<MarkedRange> Cover(const SplitStep& step, absl::string_view text) {
  std::vector<TextRange> matches;
  step.pattern.FindAll(text, &matches);
  std::vector<MarkedRange> ranges;
  ranges.reserve(2 * matches.size() + 1);
  size_t done = 0;
  for (const TextRange& match : matches) {
    if (done != match.begin) ranges.push_back({{done, match.begin}, step.invert});
    ranges.push_back({match, !step.invert});
    done = match.end;
  }
  if (done != text.size()) ranges.push_back({{done, text.size()}, step.invert});
  return ranges;
}

// The pieces that `behavior` makes of the ranges.
std::vector<TextRange> Join(SplitBehavior behavior, std::vector<MarkedRange> ranges) {
  std::vector<TextRange> joined;
  joined.reserve(ranges.size());
  const bool backwards = behavior == SplitBehavior::kMergedWithNext;
  if (backwards) std::reverse(ranges.begin(), ranges.end());
  bool previous_match = false;
  for (const auto& [range, match] : ranges) {
    bool merge = false;
    switch (behavior) {
      case SplitBehavior::kRemoved:
        if (match) continue;
        break;
      case SplitBehavior::kIsolated:
        break;
      case SplitBehavior::kContiguous:
        merge = match == previous_match;
        break;
      case SplitBehavior::kMergedWithPrevious:
      case SplitBehavior::kMergedWithNext:
        merge = match && !previous_match;
        break;
    }
    if (!merge || joined.empty()) {
      joined.push_back(range);
    } else if (backwards) {
      joined.back().begin = range.begin;
    } else {
      joined.back().end = range.end;
    }
    previous_match = match;
  }
  if (backwards) std::reverse(joined.begin(), joined.end());
  return joined;
}

void ApplyStep(const SplitStep& step, const TextPiece& piece, Storage*, Pieces* out) {
  for (const TextRange& range : Join(step.behavior, Cover(step, piece.text))) {
    Emit({piece.text.substr(range.begin, range.end - range.begin),
          range.begin == 0 ? piece.position : PiecePosition::kInside},
         out);
  }
}

void ApplyStep(const SqueezeSpacesStep& step, const TextPiece& piece, Storage* storage,
               Pieces* out) {
  std::string& text = storage->emplace_back();
  text.reserve(piece.text.size());
  bool after_space = piece.position != PiecePosition::kContinued;
  for (const char c : piece.text) {
    if (c != ' ' || !after_space) text.push_back(c);
    after_space = c == ' ';
  }
  absl::string_view squeezed = text;
  while (absl::ConsumeSuffix(&squeezed, " ") || absl::ConsumeSuffix(&squeezed, step.space_symbol)) {
  }
  Emit({squeezed, piece.position}, out);
}

}  // namespace

void TextPipeline::Apply(std::vector<TextPiece>* pieces, std::deque<std::string>* storage) const {
  Pieces next;
  for (const TextStep& step : steps_) {
    next.clear();
    for (const TextPiece& piece : *pieces) {
      std::visit([&](const auto& s) { ApplyStep(s, piece, storage, &next); }, step);
    }
    pieces->swap(next);
  }
}

}  // namespace sluice
