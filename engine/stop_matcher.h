// Finds stop strings in a stream of text without ever letting a part of one out.
#ifndef SLUICE_ENGINE_STOP_MATCHER_H_
#define SLUICE_ENGINE_STOP_MATCHER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sluice {

// Copyable: each sequence of a call has its own. Linear in the text for any number of strings
// (Knuth, Morris, Pratt: each string remembers how much of it the text ends with).
class StopMatcher {
 public:
  explicit StopMatcher(const std::vector<std::string>& strings);

  bool empty() const { return patterns_.empty(); }

  // Takes the next piece of text and appends to `*released` what can no longer be part of a stop
  // string. On a match: the index of the string that ends first (of several, the longest), the text
  // up to where it begins has been released, what follows it is dropped, and the matcher is done.
  std::optional<size_t> Append(absl::string_view text, std::string* released);
  // Bytes of Append's text that came behind the match.
  size_t dropped() const { return dropped_; }

  // Forgets what was matched so far and releases what is held back.
  void Flush(std::string* released);

 private:
  struct Pattern {
    std::string text;
    std::vector<uint32_t> failure;  // failure[i]: longest proper border of text[0..i]
    uint32_t matched = 0;           // how much of it the text ends with
  };

  void Advance(Pattern& pattern, char c);
  size_t LongestMatched() const;

  std::vector<Pattern> patterns_;
  std::string held_;
  size_t dropped_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_STOP_MATCHER_H_
