// Tokens that are found in a text before anything else looks at it.
#ifndef SLUICE_ENGINE_TOKENIZER_ADDED_TOKENS_H_
#define SLUICE_ENGINE_TOKENIZER_ADDED_TOKENS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/longest_matcher.h"

namespace sluice {

struct AddedToken {
  std::string content;
  int32_t id;
  bool single_word;  // not beside a word character
  bool lstrip;       // takes the white space in front along
  bool rstrip;       // and behind
};

// A part of a text: an added token, or what lies between two.
struct AddedSegment {
  absl::string_view text;
  int32_t id;  // kNoId: not a token
};

class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Appends the segments of `text` (valid UTF-8) in order. O(n).
  void Split(absl::string_view text, std::vector<AddedSegment>* segments) const;

 private:
  std::vector<AddedToken> tokens_;
  LongestMatcher matcher_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_ADDED_TOKENS_H_
