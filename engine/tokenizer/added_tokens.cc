#include "engine/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/utf8.h"

namespace sluice {
namespace {

std::vector<std::string> Contents(const std::vector<AddedToken>& tokens) {
  std::vector<std::string> contents;
  contents.reserve(tokens.size());
  for (const AddedToken& token : tokens) contents.push_back(token.content);
  return contents;
}

// Start of the last character of text[0, end).
size_t PreviousChar(absl::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
  return begin;
}

bool IsWord(absl::string_view character) {
  static const Pattern* const kWord = new Pattern(Pattern::WordCharacter());
  std::vector<TextRange> found;
  kWord->FindAll(character, &found);
  return !found.empty();
}

bool TouchesWord(absl::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    const size_t previous = PreviousChar(text, begin);
    if (IsWord(text.substr(previous, begin - previous))) return true;
  }
  return end < text.size() && IsWord(text.substr(end, Utf8CharSize(text.substr(end))));
}

// The beginning of the white space that ends at `end`, not below `limit`.
size_t SpaceBegin(absl::string_view text, size_t limit, size_t end) {
  while (end > limit) {
    const size_t previous = PreviousChar(text, end);
    if (!IsUnicodeSpace(Utf8CharCode(text.substr(previous)))) break;
    end = previous;
  }
  return std::max(end, limit);
}

size_t SpaceEnd(absl::string_view text, size_t begin) {
  while (begin < text.size() && IsUnicodeSpace(Utf8CharCode(text.substr(begin)))) {
    begin += Utf8CharSize(text.substr(begin));
  }
  return begin;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), matcher_(Contents(tokens_)) {}

void AddedTokens::Split(absl::string_view text, std::vector<AddedSegment>* segments) const {
  std::vector<LongestMatcher::Match> matches;
  matcher_.FindAll(text, &matches);
  size_t done = 0;
  // The last run of white space looked at, so that tokens inside it do not look again.
  size_t run_begin = 0;
  size_t run_end = 0;
  for (const LongestMatcher::Match& match : matches) {
    const AddedToken& token = tokens_[match.pattern];
    size_t begin = match.begin;
    size_t end = match.end;
    if (token.single_word && TouchesWord(text, begin, end)) continue;
    if (token.lstrip) begin = SpaceBegin(text, std::min(done, begin), begin);
    if (token.rstrip) {
      if (end < run_begin || end > run_end) {
        run_begin = end;
        run_end = SpaceEnd(text, end);
      }
      end = run_end;
    }
    if (done < begin) segments->push_back({text.substr(done, begin - done), kNoId});
    segments->push_back({text.substr(match.begin, match.end - match.begin), token.id});
    done = end;
  }
  if (done < text.size()) segments->push_back({text.substr(done), kNoId});
}

}  // namespace sluice
