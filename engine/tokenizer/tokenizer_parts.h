// The parts that a loader makes from a file and that a Tokenizer works with.
#ifndef SLUICE_ENGINE_TOKENIZER_TOKENIZER_PARTS_H_
#define SLUICE_ENGINE_TOKENIZER_TOKENIZER_PARTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/text_pipeline.h"

namespace sluice {

// The model config's facts about its tokens.
struct TokenizerOptions {
  // Rows of the embedding: every id is below it. In [1, kMaxVocabSize].
  int32_t vocab_size = 0;
  // Ids from the model's config; the tokenizer's own file (tokenizer.model only) gives those that
  // are absent.
  std::optional<int32_t> bos_id = std::nullopt;
  std::optional<int32_t> eos_id = std::nullopt;
};

inline constexpr int32_t kMaxVocabSize = 1 << 24;

// The way in which decoding treats the space that encoding made up before the first word.
enum class LeadingSpace : uint8_t {
  kKeep,              // there is none
  kStripOne,          // one space at the start of the text goes
  kStripPiece,        // one "▁" of the first piece goes
  kStripPieces,       // one "▁" of each piece goes until there is text
  kStripReplacement,  // all "▁" of the first piece go
};

struct TokenizerParts {
  std::string kind;  // for people: "byte-level BPE"

  int64_t left_out = 0;  // pieces of the file whose ids the model does not have

  // By id. A hole in the numbering is an empty piece.
  std::vector<std::string> pieces;
  std::vector<std::string> texts;
  std::vector<bool> control;

  // Encoding, in this order.
  AddedTokens added;             // matched in the text as it came
  TextPipeline normalizer;       // one text in, one out
  AddedTokens added_normalized;  // matched in the normalized text
  TextPipeline pre_tokenizer;
  Bpe bpe;
  std::vector<int32_t> before;  // put around a text that wants special tokens
  std::vector<int32_t> after;

  // Decoding.
  LeadingSpace leading_space = LeadingSpace::kKeep;
  std::string space_symbol =
      "\xE2\x96\x81";  // what kStripPiece, kStripPieces and kStripReplacement look for
  // If true, each byte that is no character becomes a U+FFFD; otherwise each longest run that
  // begins one does.
  bool replace_each_byte = false;

  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_TOKENIZER_PARTS_H_
