#include "engine/tokenizer/longest_matcher.h"

#include <algorithm>
#include <numeric>

namespace sluice {

LongestMatcher::LongestMatcher(const std::vector<std::string>& patterns) {
  nodes_.push_back({.parent = 0, .depth = 0, .byte = 0});
  sizes_.reserve(patterns.size());
  for (const std::string& pattern : patterns) {
    AddPattern(pattern, static_cast<int32_t>(sizes_.size()));
    sizes_.push_back(pattern.size());
  }
  LinkFailures();
}

uint32_t LongestMatcher::Child(uint32_t node, uint8_t byte) const {
  if (node == 0) return root_children_[byte];
  const auto it = children_.find(EdgeKey(node, byte));
  return it == children_.end() ? 0 : it->second;
}

uint32_t LongestMatcher::Next(uint32_t node, uint8_t byte) const {
  for (;;) {
    const uint32_t child = Child(node, byte);
    if (child != 0 || node == 0) return child;
    node = nodes_[node].fail;
  }
}

void LongestMatcher::AddPattern(absl::string_view pattern, int32_t index) {
  uint32_t node = 0;
  for (size_t i = pattern.size(); i-- > 0;) {
    const uint8_t byte = static_cast<uint8_t>(pattern[i]);
    uint32_t child = Child(node, byte);
    if (child == 0) {
      child = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back({.parent = node, .depth = nodes_[node].depth + 1, .byte = byte});
      if (node == 0) {
        root_children_[byte] = child;
      } else {
        children_.emplace(EdgeKey(node, byte), child);
      }
    }
    node = child;
  }
  if (node != 0 && nodes_[node].pattern < 0) nodes_[node].pattern = index;
}

void LongestMatcher::LinkFailures() {
  std::vector<uint32_t> by_depth(nodes_.size());
  std::iota(by_depth.begin(), by_depth.end(), 0);
  std::stable_sort(by_depth.begin(), by_depth.end(),
                   [this](uint32_t a, uint32_t b) { return nodes_[a].depth < nodes_[b].depth; });
  for (const uint32_t index : by_depth) {
    Node& node = nodes_[index];
    if (node.depth > 1) node.fail = Next(nodes_[node.parent].fail, node.byte);
    if (node.pattern < 0) node.pattern = nodes_[node.fail].pattern;
  }
}

void LongestMatcher::FindAll(absl::string_view text, std::vector<Match>* matches) const {
  if (empty()) return;
  // The longest pattern at each position that starts one, from right to left.
  std::vector<Match> candidates;
  uint32_t node = 0;
  for (size_t i = text.size(); i-- > 0;) {
    node = Next(node, static_cast<uint8_t>(text[i]));
    const int32_t pattern = nodes_[node].pattern;
    if (pattern >= 0) candidates.push_back({i, i + sizes_[pattern], pattern});
  }
  size_t done = 0;
  for (auto it = candidates.rbegin(); it != candidates.rend(); ++it) {
    if (it->begin < done) continue;
    matches->push_back(*it);
    done = it->end;
  }
}

}  // namespace sluice
