// Small tokenizer files for tests.
#ifndef SLUICE_TESTS_ENGINE_TOKENIZER_SMALL_TOKENIZERS_H_
#define SLUICE_TESTS_ENGINE_TOKENIZER_SMALL_TOKENIZERS_H_

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/utf8.h"

namespace sluice {

inline constexpr int32_t kSmallVocabSize = 300;

// The 256 byte symbols, "he" 256, "Ġhe" 257, "<|end|>" 258 (special), "<tool>" 259 (an added token
// that is text).
inline nlohmann::json SmallByteLevelJson() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    std::string piece;
    AppendUtf8(ByteLevelCharacter(static_cast<uint8_t>(byte)), &piece);
    vocab[piece] = byte;
  }
  vocab["he"] = 256;
  vocab["Ġhe"] = 257;
  return {
      {"added_tokens",
       {{{"id", 258}, {"content", "<|end|>"}, {"special", true}, {"normalized", false}},
        {{"id", 259}, {"content", "<tool>"}, {"special", false}, {"normalized", false}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e", "Ġ he"}}}},
  };
}

// A field of SentencePiece's protobuf message: `value` as a varint, or as bytes.
inline std::string ProtoVarint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

inline std::string ProtoInt(uint32_t number, uint64_t value) {
  return ProtoVarint(number << 3) + ProtoVarint(value);
}

inline std::string ProtoBytes(uint32_t number, const std::string& value) {
  return ProtoVarint(number << 3 | 2) + ProtoVarint(value.size()) + value;
}

inline std::string SentencePiece(const std::string& text, float score, int type) {
  std::string bits(4, '\0');
  std::memcpy(bits.data(), &score, 4);
  return ProtoBytes(1, ProtoBytes(1, text) + ProtoVarint(2 << 3 | 5) + bits +
                           ProtoInt(3, static_cast<uint64_t>(type)));
}

// <unk> <s> </s> ▁ a b "▁a" "ab", no byte fallback; remove_extra_whitespaces off.
inline std::string SmallSentencePieceModel(const std::string& more_pieces = "",
                                           const std::string& trainer = "",
                                           const std::string& normalizer = "") {
  return SentencePiece("<unk>", 0, 2) + SentencePiece("<s>", 0, 3) + SentencePiece("</s>", 0, 3) +
         SentencePiece("\u2581", -3, 1) + SentencePiece("a", -4, 1) + SentencePiece("b", -5, 1) +
         SentencePiece("\u2581a", -1, 1) + SentencePiece("ab", -2, 1) + more_pieces +
         ProtoBytes(2, ProtoInt(3, 2) + trainer) + ProtoBytes(3, ProtoInt(4, 0) + normalizer);
}

}  // namespace sluice

#endif  // SLUICE_TESTS_ENGINE_TOKENIZER_SMALL_TOKENIZERS_H_
