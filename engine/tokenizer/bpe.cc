#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <utility>

#include "engine/tokenizer/utf8.h"

namespace sluice {
namespace {

using Candidate = BpeScratch::Candidate;

constexpr size_t kPartSymbols = 4096;
constexpr int kLongestPiece = 4096;  // symbols

// Orders a heap whose top is the best rank, and of those the leftmost.
bool Later(const Candidate& a, const Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

void AddSymbol(int32_t id, uint32_t size, bool fixed, std::vector<BpeSymbol>* symbols) {
  const int32_t index = static_cast<int32_t>(symbols->size());
  if (index > 0) symbols->back().next = index;
  symbols->push_back({id, size, index - 1, -1, fixed});
}

// The candidate that `left` and its right neighbour are, if they merge.
bool FindCandidate(const MergeTable& merges, const std::vector<BpeSymbol>& symbols, int32_t left,
                   Candidate* candidate) {
  if (left < 0 || symbols[left].next < 0) return false;
  const BpeSymbol& a = symbols[left];
  const BpeSymbol& b = symbols[a.next];
  if (a.fixed || b.fixed) return false;
  const MergeTable::Merge* merge = merges.Find(a.id, b.id);
  if (merge == nullptr) return false;
  *candidate = {merge->rank, left, a.next, a.size + b.size};
  return true;
}

void PushCandidate(const MergeTable& merges, int32_t left, BpeScratch* scratch) {
  Candidate candidate;
  if (!FindCandidate(merges, scratch->symbols, left, &candidate)) return;
  scratch->heap.push_back(candidate);
  std::push_heap(scratch->heap.begin(), scratch->heap.end(), Later);
}

}  // namespace

void ApplyMerges(const MergeTable& merges, BpeScratch* scratch) {
  std::vector<BpeSymbol>& symbols = scratch->symbols;
  std::vector<Candidate>& heap = scratch->heap;
  heap.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    Candidate candidate;
    if (FindCandidate(merges, symbols, static_cast<int32_t>(i), &candidate))
      heap.push_back(candidate);
  }
  std::make_heap(heap.begin(), heap.end(), Later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), Later);
    const Candidate top = heap.back();
    heap.pop_back();
    BpeSymbol& left = symbols[top.left];
    BpeSymbol& right = symbols[top.right];
    // Symbols only grow or vanish, so an equal size means that both are as they were.
    if (left.size == 0 || right.size == 0 || left.size + right.size != top.size) continue;
    left.id = merges.Find(left.id, right.id)->result;
    left.size = top.size;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = top.left;
    right.size = 0;
    PushCandidate(merges, left.previous, scratch);
    PushCandidate(merges, top.left, scratch);
  }
}

// The symbols that a merge's result begins and ends with follow from any merge that gives it, as
// all of them spell the same text. Where a file breaks that, nothing is cut.
void Bpe::FindJoints() {
  absl::flat_hash_map<int32_t, std::pair<int32_t, int32_t>> parts;
  const auto left_of = [](uint64_t key) { return static_cast<int32_t>(key >> 32); };
  const auto right_of = [](uint64_t key) { return static_cast<int32_t>(key & 0xffffffff); };
  for (const auto& [key, merge] : merges_.merges()) {
    parts.emplace(merge.result, std::pair(left_of(key), right_of(key)));
  }
  for (const int32_t id : vocabulary_.bytes) {
    if (parts.contains(id)) return;
  }
  for (const auto& [character, id] : vocabulary_.characters) {
    if (parts.contains(id)) return;
  }
  // The first and the last symbol of a piece; kNoId for one that is made of itself.
  using Pair = std::pair<int32_t, int32_t>;
  absl::flat_hash_map<int32_t, int32_t> first_of, last_of;
  const auto outermost = [&parts](int32_t piece, int32_t Pair::*side,
                                  absl::flat_hash_map<int32_t, int32_t>* known) {
    int32_t id = piece;
    for (int steps = 0; steps < kLongestPiece; ++steps) {
      if (const auto it = known->find(id); it != known->end()) {
        id = it->second;
        break;
      }
      const auto it = parts.find(id);
      if (it == parts.end()) break;
      id = it->second.*side;
      if (steps + 1 == kLongestPiece) id = kNoId;
    }
    (*known)[piece] = id;
    return id;
  };
  const auto first = [&](int32_t id) { return outermost(id, &Pair::first, &first_of); };
  const auto last = [&](int32_t id) { return outermost(id, &Pair::second, &last_of); };
  for (const auto& [key, merge] : merges_.merges()) {
    const int32_t left = left_of(key), right = right_of(key);
    if (last(left) == kNoId || first(right) == kNoId || first(merge.result) != first(left) ||
        last(merge.result) != last(right)) {
      return;
    }
    joints_.insert(MergeTable::Key(last(left), first(right)));
  }
  cuttable_ = true;
}

void Bpe::AddUnknown(uint32_t size, BpeScratch* scratch) const {
  if (vocabulary_.unknown_id == kNoId) return;
  AddSymbol(vocabulary_.unknown_id, size, false, &scratch->text);
}

void Bpe::AddByteSymbols(absl::string_view text, BpeScratch* scratch) const {
  for (const char c : text) {
    const int32_t id = vocabulary_.bytes[static_cast<uint8_t>(c)];
    if (id == kNoId) {
      AddUnknown(1, scratch);
    } else {
      AddSymbol(id, 1, false, &scratch->text);
    }
  }
}

void Bpe::AddCharacters(absl::string_view text, BpeScratch* scratch) const {
  while (!text.empty()) {
    const uint32_t size = static_cast<uint32_t>(Utf8CharSize(text));
    const auto it = vocabulary_.characters.find(Utf8CharCode(text));
    if (it != vocabulary_.characters.end()) {
      AddSymbol(it->second, size, false, &scratch->text);
    } else if (vocabulary_.byte_fallback) {
      AddByteSymbols(text.substr(0, size), scratch);
    } else {
      AddUnknown(size, scratch);
    }
    text.remove_prefix(size);
  }
}

void Bpe::AddFixedAndCharacters(absl::string_view text, BpeScratch* scratch) const {
  std::vector<LongestMatcher::Match> matches;
  vocabulary_.fixed.FindAll(text, &matches);
  size_t done = 0;
  for (const LongestMatcher::Match& match : matches) {
    AddCharacters(text.substr(done, match.begin - done), scratch);
    AddSymbol(vocabulary_.fixed_ids[match.pattern], static_cast<uint32_t>(match.end - match.begin),
              true, &scratch->text);
    done = match.end;
  }
  AddCharacters(text.substr(done), scratch);
}

// A text is merged in parts, cut where no merge can join: the ids are those of the whole, a long
// text takes the heap of a short one, and whoever has seen enough need not wait for the rest.
bool Bpe::Encode(absl::string_view text, BpeScratch* scratch, std::vector<int32_t>* ids,
                 const EnoughIds& enough) const {
  if (!vocabulary_.whole.empty()) {
    const auto it = vocabulary_.whole.find(text);
    if (it != vocabulary_.whole.end()) {
      ids->push_back(it->second);
      return true;
    }
  }
  std::vector<BpeSymbol>& all = scratch->text;
  all.clear();
  if (vocabulary_.byte_level) {
    AddByteSymbols(text, scratch);
  } else if (vocabulary_.fixed.empty()) {
    AddCharacters(text, scratch);
  } else {
    AddFixedAndCharacters(text, scratch);
  }
  const size_t first = ids->size();
  for (size_t begin = 0; begin < all.size();) {
    size_t end = std::min(begin + kPartSymbols, all.size());
    while (end < all.size() && !MayCut(all[end - 1].id, all[end].id)) {
      ++end;
    }
    scratch->symbols.clear();
    for (; begin < end; ++begin) {
      AddSymbol(all[begin].id, all[begin].size, all[begin].fixed, &scratch->symbols);
    }
    ApplyMerges(merges_, scratch);
    text.remove_prefix(AppendIds(text, scratch->symbols, first, ids));
    if (enough != nullptr && enough(*ids)) return false;
  }
  return true;
}

size_t Bpe::AppendIds(absl::string_view text, const std::vector<BpeSymbol>& symbols, size_t first,
                      std::vector<int32_t>* ids) const {
  size_t position = 0;
  for (const BpeSymbol& symbol : symbols) {
    if (symbol.size == 0) continue;
    const absl::string_view covered = text.substr(position, symbol.size);
    position += symbol.size;
    int32_t id = symbol.id;
    if (id >= vocabulary_.first_internal_id) {
      if (vocabulary_.byte_fallback) {
        for (const char c : covered) ids->push_back(vocabulary_.bytes[static_cast<uint8_t>(c)]);
        continue;
      }
      id = vocabulary_.unknown_id;
    }
    const bool fused = vocabulary_.fuse_unknown && id == vocabulary_.unknown_id &&
                       ids->size() > first && ids->back() == id;
    if (id != kNoId && !fused) ids->push_back(id);
  }
  return position;
}

}  // namespace sluice
