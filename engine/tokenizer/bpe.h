// Byte pair encoding: a piece of text becomes symbols, and neighbours are merged, best rank first.
#ifndef SLUICE_ENGINE_TOKENIZER_BPE_H_
#define SLUICE_ENGINE_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/longest_matcher.h"

namespace sluice {

inline constexpr int32_t kNoId = -1;

// Asked of the ids that a text has given so far: whether they are all that is wanted. Null: never.
using EnoughIds = std::function<bool(const std::vector<int32_t>&)>;

// The pairs of neighbours that merge, what they become, and in which order.
class MergeTable {
 public:
  struct Merge {
    int32_t rank;  // lower goes first
    int32_t result;
  };

  void Reserve(size_t merges) { merges_.reserve(merges); }

  // False if the pair is in the table.
  bool Add(int32_t left, int32_t right, Merge merge) {
    return merges_.emplace(Key(left, right), merge).second;
  }

  // Null if the two do not merge.
  const Merge* Find(int32_t left, int32_t right) const {
    const auto it = merges_.find(Key(left, right));
    return it == merges_.end() ? nullptr : &it->second;
  }

  size_t size() const { return merges_.size(); }

  const absl::flat_hash_map<uint64_t, Merge>& merges() const { return merges_; }

  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }

 private:
  absl::flat_hash_map<uint64_t, Merge> merges_;
};

struct BpeSymbol {
  int32_t id;
  uint32_t size;  // bytes of text; 0 once merged into its left neighbour
  int32_t previous;
  int32_t next;
  bool fixed;  // never merges
};

// Memory of one encoding, kept from piece to piece.
struct BpeScratch {
  struct Candidate {
    int32_t rank;
    int32_t left;
    int32_t right;
    uint32_t size;  // of both together, when the candidate was found
  };
  std::vector<BpeSymbol> text;     // of the whole piece, not merged yet
  std::vector<BpeSymbol> symbols;  // of the part that is merged
  std::vector<Candidate> heap;
};

// Merges `scratch->symbols` until no neighbours merge; of equal ranks the leftmost goes first. O(n
// log n).
void ApplyMerges(const MergeTable& merges, BpeScratch* scratch);

// The vocabulary as encoding sees it. Filled by a loader, then constant.
struct BpeVocabulary {
  // Ids from here on name characters that occur inside pieces only: they merge, but are no token.
  int32_t first_internal_id = 0;
  absl::flat_hash_map<char32_t, int32_t> characters;
  // The symbol of each byte in byte-level text; otherwise the symbols that an unknown character is
  // made of.
  std::array<int32_t, 256> bytes;
  bool byte_level = false;
  bool byte_fallback = false;  // `bytes` is complete, for unknown characters
  int32_t unknown_id = kNoId;  // without one and without fallback, what is unknown vanishes
  bool fuse_unknown = false;   // unknown neighbours give one unknown_id
  // Texts that are one token whatever the merges would make of them.
  absl::flat_hash_map<std::string, int32_t> whole;
  // Pieces that are found first, leftmost and longest, and never merge; pattern i has id
  // fixed_ids[i].
  LongestMatcher fixed;
  std::vector<int32_t> fixed_ids;

  BpeVocabulary() { bytes.fill(kNoId); }
};

class Bpe {
 public:
  Bpe() = default;
  Bpe(BpeVocabulary vocabulary, MergeTable merges)
      : vocabulary_(std::move(vocabulary)), merges_(std::move(merges)) {
    FindJoints();
  }

  // Appends the ids of `text`, which is valid UTF-8 below 2^31 bytes. Stops early, and returns
  // false, once `enough` says so of all ids so far; it is asked every few thousand symbols.
  bool Encode(absl::string_view text, BpeScratch* scratch, std::vector<int32_t>* ids,
              const EnoughIds& enough = nullptr) const;

 private:
  void AddByteSymbols(absl::string_view text, BpeScratch* scratch) const;
  void AddFixedAndCharacters(absl::string_view text, BpeScratch* scratch) const;
  void AddCharacters(absl::string_view text, BpeScratch* scratch) const;
  void AddUnknown(uint32_t size, BpeScratch* scratch) const;
  // Appends the ids of merged symbols, which are of the beginning of `text`; returns the bytes they
  // cover. `first`: where the ids of the whole piece begin.
  size_t AppendIds(absl::string_view text, const std::vector<BpeSymbol>& symbols, size_t first,
                   std::vector<int32_t>* ids) const;

  // True if a text may be cut between two neighbouring symbols.
  bool MayCut(int32_t left, int32_t right) const {
    return cuttable_ && !joints_.contains(MergeTable::Key(left, right));
  }
  void FindJoints();

  BpeVocabulary vocabulary_;
  MergeTable merges_;
  // Pairs of unmerged symbols between which some merge, however late, may join what they have
  // become part of.
  absl::flat_hash_set<uint64_t> joints_;
  bool cuttable_ = false;  // the pairs are known
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_BPE_H_
