// The sections of tokenizer.json that say how text is taken apart and put together again.
#ifndef SLUICE_ENGINE_TOKENIZER_JSON_SECTIONS_H_
#define SLUICE_ENGINE_TOKENIZER_JSON_SECTIONS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/json_file.h"
#include "engine/tokenizer/text_pipeline.h"
#include "engine/tokenizer/tokenizer_parts.h"

namespace sluice {

// All readers: what is wrong or not supported becomes `status`, unless that holds an error already.

// "normalizer": Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, ByteLevel.
TextPipeline ReadNormalizer(const JsonField& field, absl::Status* status);

struct PreTokenizerSection {
  TextPipeline steps;
  bool byte_level = false;  // the pieces are to be read as bytes
};

// "pre_tokenizer": Sequence, ByteLevel, Split, Digits, Metaspace.
PreTokenizerSection ReadPreTokenizer(const JsonField& field, absl::Status* status);

struct DecoderSection {
  bool byte_level = false;     // pieces are written in the byte-level alphabet
  bool byte_fallback = false;  // a piece like <0x0A> is a byte
  std::vector<std::pair<std::string, std::string>> replacements;
  LeadingSpace leading_space = LeadingSpace::kKeep;
  std::string space_symbol;  // of kStripReplacement

  // The bytes that a piece adds to a text.
  std::string Text(absl::string_view piece) const;
};

// "decoder": Sequence, ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace.
DecoderSection ReadDecoder(const JsonField& field, absl::Status* status);

struct TemplateSection {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

// "post_processor": Sequence, TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel.
TemplateSection ReadPostProcessor(const JsonField& field, int32_t vocab_size, absl::Status* status);

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_JSON_SECTIONS_H_
