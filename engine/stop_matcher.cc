#include "engine/stop_matcher.h"

#include <algorithm>

namespace sluice {

StopMatcher::StopMatcher(const std::vector<std::string>& strings) {
  for (const std::string& text : strings) {
    Pattern pattern;
    pattern.text = text;
    pattern.failure.assign(text.size(), 0);
    for (size_t i = 1; i < text.size(); ++i) {
      uint32_t border = pattern.failure[i - 1];
      while (border > 0 && text[i] != text[border]) border = pattern.failure[border - 1];
      if (text[i] == text[border]) ++border;
      pattern.failure[i] = border;
    }
    patterns_.push_back(std::move(pattern));
  }
}

void StopMatcher::Advance(Pattern& pattern, char c) {
  uint32_t& m = pattern.matched;
  if (m == pattern.text.size()) m = pattern.failure[m - 1];
  while (m > 0 && c != pattern.text[m]) m = pattern.failure[m - 1];
  if (c == pattern.text[m]) ++m;
}

size_t StopMatcher::LongestMatched() const {
  size_t longest = 0;
  for (const Pattern& pattern : patterns_) longest = std::max<size_t>(longest, pattern.matched);
  return longest;
}

std::optional<size_t> StopMatcher::Append(absl::string_view text, std::string* released) {
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    held_.push_back(c);
    std::optional<size_t> found;
    for (size_t i = 0; i < patterns_.size(); ++i) {
      Advance(patterns_[i], c);
      const size_t length = patterns_[i].text.size();
      if (patterns_[i].matched == length && (!found || length > patterns_[*found].text.size())) {
        found = i;
      }
    }
    if (found) {
      released->append(held_, 0, held_.size() - patterns_[*found].text.size());
      held_.clear();
      dropped_ = text.size() - at - 1;
      return found;
    }
  }
  const size_t keep = LongestMatched();
  released->append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return std::nullopt;
}

void StopMatcher::Flush(std::string* released) {
  released->append(held_);
  held_.clear();
  for (Pattern& pattern : patterns_) pattern.matched = 0;
}

}  // namespace sluice
