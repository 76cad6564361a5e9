#include "engine/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace sluice {
namespace {

// The definition, quadratic: of the best rank anywhere, the leftmost pair merges.
std::vector<int32_t> MergeSlowly(const MergeTable& merges, std::vector<int32_t> ids) {
  for (;;) {
    const MergeTable::Merge* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const MergeTable::Merge* merge = merges.Find(ids[i], ids[i + 1]);
      if (merge != nullptr && (best == nullptr || merge->rank < best->rank)) {
        best = merge;
        at = i;
      }
    }
    if (best == nullptr) return ids;
    ids[at] = best->result;
    ids.erase(ids.begin() + static_cast<int64_t>(at) + 1);
  }
}

TEST(Bpe, MergesAsTheDefinitionSays) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    BpeVocabulary vocabulary;
    vocabulary.byte_level = true;
    vocabulary.first_internal_id = 1000;
    for (int i = 0; i < 4; ++i) vocabulary.bytes['a' + i] = i;
    // Each new piece joins two older ones; its rank is its age, or in every other round shared with
    // others.
    MergeTable merges;
    for (int32_t id = 4; id < 30; ++id) {
      const int32_t left = static_cast<int32_t>(random() % static_cast<uint32_t>(id));
      const int32_t right = static_cast<int32_t>(random() % static_cast<uint32_t>(id));
      merges.Add(left, right, {round % 2 == 0 ? id : id / 4, id});
    }
    const Bpe bpe(vocabulary, merges);
    std::string text(random() % 60, ' ');
    std::vector<int32_t> symbols;
    for (char& c : text) {
      c = static_cast<char>('a' + random() % 4);
      symbols.push_back(c - 'a');
    }
    BpeScratch scratch;
    std::vector<int32_t> ids;
    bpe.Encode(text, &scratch, &ids);
    EXPECT_EQ(ids, MergeSlowly(merges, symbols)) << text;
  }
}

// Few merges among many symbols, so that long texts have places where they may be cut.
TEST(Bpe, ALongTextGivesTheIdsOfTheWhole) {
  std::mt19937 random(6);
  size_t stopped_early = 0;
  for (int round = 0; round < 20; ++round) {
    BpeVocabulary vocabulary;
    vocabulary.byte_level = true;
    vocabulary.first_internal_id = 1000;
    for (int i = 0; i < 26; ++i) vocabulary.bytes['a' + i] = i;
    MergeTable merges;
    for (int32_t id = 26; id < 100; ++id) {
      const uint32_t pieces = round % 4 == 0 ? 26 : static_cast<uint32_t>(id);
      merges.Add(static_cast<int32_t>(random() % pieces), static_cast<int32_t>(random() % pieces),
                 {id, id});
    }
    const Bpe bpe(vocabulary, merges);
    BpeScratch whole;
    std::string text(20000 + random() % 1000, ' ');
    for (size_t i = 0; i < text.size(); ++i) {
      text[i] = static_cast<char>('a' + random() % 26);
      const int32_t at = static_cast<int32_t>(i);
      if (at > 0) whole.symbols.back().next = at;
      whole.symbols.push_back({text[i] - 'a', 1, at - 1, -1, false});
    }
    ApplyMerges(merges, &whole);
    std::vector<int32_t> expected;
    for (const BpeSymbol& symbol : whole.symbols) {
      if (symbol.size > 0) expected.push_back(symbol.id);
    }
    BpeScratch scratch;
    std::vector<int32_t> ids;
    EXPECT_TRUE(bpe.Encode(text, &scratch, &ids));
    EXPECT_EQ(ids, expected);
    std::vector<int32_t> some;
    bpe.Encode(text, &scratch, &some, [](const auto& so_far) { return so_far.size() > 100; });
    ASSERT_LE(some.size(), expected.size());
    EXPECT_TRUE(std::equal(some.begin(), some.end(), expected.begin()));
    if (some.size() < expected.size() / 2) ++stopped_early;
  }
  EXPECT_GE(stopped_early, 15u);
}

TEST(Bpe, PiecesThatAreMadeOfThemselvesDoNotHang) {
  BpeVocabulary vocabulary;
  vocabulary.byte_level = true;
  vocabulary.first_internal_id = 1000;
  for (int i = 0; i < 26; ++i) vocabulary.bytes['a' + i] = i;
  MergeTable merges;
  merges.Add(30, 31, {1, 30});
  merges.Add(31, 30, {2, 31});
  merges.Add(0, 1, {3, 31});
  BpeScratch scratch;
  std::vector<int32_t> ids;
  Bpe(vocabulary, merges).Encode("abc", &scratch, &ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{31, 2}));
}

TEST(Bpe, WhatIsUnknown) {
  BpeVocabulary vocabulary;
  vocabulary.first_internal_id = 1000;
  vocabulary.characters = {{U'a', 1}};
  const auto encode = [](const BpeVocabulary& v, absl::string_view text) {
    BpeScratch scratch;
    std::vector<int32_t> ids;
    Bpe(v, MergeTable()).Encode(text, &scratch, &ids);
    return ids;
  };
  EXPECT_EQ(encode(vocabulary, "aééa"), (std::vector<int32_t>{1, 1}));
  vocabulary.unknown_id = 0;
  EXPECT_EQ(encode(vocabulary, "aééa"), (std::vector<int32_t>{1, 0, 0, 1}));
  vocabulary.fuse_unknown = true;
  EXPECT_EQ(encode(vocabulary, "aééa"), (std::vector<int32_t>{1, 0, 1}));
  vocabulary.byte_fallback = true;
  for (int byte = 0; byte < 256; ++byte) vocabulary.bytes[byte] = 100 + byte;
  EXPECT_EQ(encode(vocabulary, "aé"), (std::vector<int32_t>{1, 100 + 0xC3, 100 + 0xA9}));
}

}  // namespace
}  // namespace sluice
