// Finds many fixed strings in a text at once.
#ifndef SLUICE_ENGINE_TOKENIZER_LONGEST_MATCHER_H_
#define SLUICE_ENGINE_TOKENIZER_LONGEST_MATCHER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace sluice {

// An Aho-Corasick automaton over the reversed patterns. Read from the end, it knows at each byte of
// the text the longest pattern that starts there, so leftmost-longest matching takes O(n) whatever
// the patterns.
class LongestMatcher {
 public:
  struct Match {
    size_t begin;
    size_t end;
    int32_t pattern;
  };

  LongestMatcher() = default;
  // Empty patterns match nothing; of equal patterns the first counts.
  explicit LongestMatcher(const std::vector<std::string>& patterns);

  bool empty() const { return nodes_.size() <= 1; }

  // Appends the matches in `text` from left to right: the leftmost first, of those the longest,
  // never overlapping.
  void FindAll(absl::string_view text, std::vector<Match>* matches) const;

 private:
  struct Node {
    uint32_t parent;
    uint32_t fail = 0;
    uint32_t depth;
    int32_t pattern = -1;  // the longest pattern that ends here
    uint8_t byte;
  };

  static uint64_t EdgeKey(uint32_t node, uint8_t byte) { return uint64_t{node} << 8 | byte; }
  uint32_t Child(uint32_t node, uint8_t byte) const;  // 0 if there is none
  uint32_t Next(uint32_t node, uint8_t byte) const;
  void AddPattern(absl::string_view pattern, int32_t index);
  void LinkFailures();

  std::vector<Node> nodes_;
  std::array<uint32_t, 256> root_children_ = {};
  absl::flat_hash_map<uint64_t, uint32_t> children_;  // of the other nodes
  std::vector<size_t> sizes_;                         // of the patterns
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_LONGEST_MATCHER_H_
