#include "engine/tokenizer/json_sections.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/utf8.h"

namespace sluice {
namespace {

void RefuseType(const JsonField& field, absl::string_view type, absl::string_view supported,
                absl::Status* status) {
  field.At("type").Fail(absl::StrCat(type, " is not supported, must be one of ", supported),
                        status);
}

// {"String": ...} or {"Regex": ...}
Pattern ReadPattern(const JsonField& field, absl::Status* status) {
  const JsonField literal = field.At("String");
  if (!literal.is_null()) return Pattern::Literal(literal.String(status));
  const JsonField regex = field.At("Regex");
  absl::StatusOr<Pattern> pattern = Pattern::Regex(regex.String(status));
  if (pattern.ok()) return *std::move(pattern);
  regex.Fail(pattern.status().message(), status);
  return Pattern::Literal("");
}

// Shared by pre-tokenizer and decoder. Files from before prepend_scheme say add_prefix_space.
struct Metaspace {
  std::string symbol;
  std::string scheme;
  bool split;
};

Metaspace ReadMetaspace(const JsonField& field, absl::Status* status) {
  Metaspace metaspace;
  metaspace.symbol = field.At("replacement").String(status);
  if (metaspace.symbol.empty() || Utf8CharSize(metaspace.symbol) != metaspace.symbol.size()) {
    field.At("replacement").Fail("must be one character", status);
  }
  const JsonField scheme = field.At("prepend_scheme");
  metaspace.scheme = scheme.is_null() ? "always" : scheme.String(status);
  if (!field.At("add_prefix_space").Bool(true, status)) metaspace.scheme = "never";
  if (metaspace.scheme != "always" && metaspace.scheme != "first" && metaspace.scheme != "never") {
    scheme.Fail("must be always, first or never", status);
  }
  metaspace.split = field.At("split").Bool(true, status);
  return metaspace;
}

std::optional<UnicodeForm> FormOf(absl::string_view type) {
  if (type == "NFC") return UnicodeForm::kNfc;
  if (type == "NFD") return UnicodeForm::kNfd;
  if (type == "NFKC") return UnicodeForm::kNfkc;
  if (type == "NFKD") return UnicodeForm::kNfkd;
  return std::nullopt;
}

void AddNormalizer(const JsonField& field, std::vector<TextStep>* steps, absl::Status* status) {
  const std::string type = field.At("type").String(status);
  if (type == "Sequence") {
    for (const JsonField& element : field.At("normalizers").Elements(status)) {
      AddNormalizer(element, steps, status);
    }
  } else if (type == "Prepend") {
    steps->push_back(PrefixStep{.prefix = field.At("prepend").String(status)});
  } else if (type == "Replace") {
    Pattern pattern = ReadPattern(field.At("pattern"), status);
    steps->push_back(ReplaceStep{std::move(pattern), field.At("content").String(status)});
  } else if (type == "ByteLevel") {
    steps->push_back(ByteLevelStep());
  } else if (const std::optional<UnicodeForm> form = FormOf(type)) {
    steps->push_back(UnicodeStep{*form});
  } else {
    RefuseType(field, type, "Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, ByteLevel", status);
  }
}

SplitBehavior ReadBehavior(const JsonField& field, absl::Status* status) {
  const std::string name = field.String(status);
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  field.Fail("must be one of Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous",
             status);
  return SplitBehavior::kRemoved;
}

void AddMetaspace(const JsonField& field, std::vector<TextStep>* steps, absl::Status* status) {
  const Metaspace metaspace = ReadMetaspace(field, status);
  steps->push_back(ReplaceStep{Pattern::Literal(" "), metaspace.symbol});
  if (metaspace.scheme != "never") {
    steps->push_back(PrefixStep{.prefix = metaspace.symbol,
                                .text_start_only = metaspace.scheme == "first",
                                .unless_there = true});
  }
  if (metaspace.split) {
    steps->push_back(SplitStep{Pattern::Literal(metaspace.symbol), SplitBehavior::kMergedWithNext});
  }
}

void AddPreTokenizer(const JsonField& field, std::vector<TextStep>* steps, bool* byte_level,
                     absl::Status* status) {
  if (*byte_level) return field.Fail("follows ByteLevel, which must be the last", status);
  const std::string type = field.At("type").String(status);
  if (type == "Sequence") {
    for (const JsonField& element : field.At("pretokenizers").Elements(status)) {
      AddPreTokenizer(element, steps, byte_level, status);
    }
  } else if (type == "ByteLevel") {
    *byte_level = true;
    if (field.At("add_prefix_space").Bool(true, status)) {
      steps->push_back(PrefixStep{.prefix = " ", .unless_there = true});
    }
    if (field.At("use_regex").Bool(true, status)) {
      steps->push_back(SplitStep{Pattern::Gpt2(), SplitBehavior::kIsolated});
    }
  } else if (type == "Split") {
    Pattern pattern = ReadPattern(field.At("pattern"), status);
    steps->push_back(SplitStep{std::move(pattern), ReadBehavior(field.At("behavior"), status),
                               field.At("invert").Bool(false, status)});
  } else if (type == "Digits") {
    const bool individual = field.At("individual_digits").Bool(false, status);
    steps->push_back(SplitStep{Pattern::Number(),
                               individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous});
  } else if (type == "Metaspace") {
    AddMetaspace(field, steps, status);
  } else {
    RefuseType(field, type, "Sequence, ByteLevel, Split, Digits, Metaspace", status);
  }
}

// The steps that came already: the later ones must be possible token by token.
struct DecoderState {
  bool any = false;
  bool fused = false;
  bool stripped = false;
};

void AddStrip(const JsonField& field, const DecoderState& state, DecoderSection* section,
              absl::Status* status) {
  const JsonField start = field.At("start");
  const JsonField stop = field.At("stop");
  const int64_t count = start.Integer(status);
  if (field.At("content").String(status) != " ") {
    field.At("content").Fail("must be one space", status);
  }
  if (count != 0 && count != 1) start.Fail("must be 0 or 1", status);
  if (stop.Integer(status) != 0) stop.Fail("must be 0", status);
  if (!state.fused || state.stripped) field.Fail("must follow Fuse, once", status);
  if (count == 1) section->leading_space = LeadingSpace::kStripOne;
}

void AddDecoder(const JsonField& field, DecoderState* state, DecoderSection* section,
                absl::Status* status) {
  const std::string type = field.At("type").String(status);
  if (type == "Sequence") {
    for (const JsonField& element : field.At("decoders").Elements(status)) {
      AddDecoder(element, state, section, status);
    }
    return;
  }
  if (section->byte_level) field.Fail("follows ByteLevel, which must be alone", status);
  if (state->fused && type != "Strip" && type != "Fuse") {
    field.Fail("follows Fuse, only Strip may", status);
  }
  if (type == "ByteLevel") {
    if (state->any) field.Fail("must be alone", status);
    section->byte_level = true;
  } else if (type == "Replace") {
    const JsonField literal = field.At("pattern").At("String");
    std::string from = literal.String(status);
    if (from.empty()) literal.Fail("is empty", status);
    section->replacements.emplace_back(std::move(from), field.At("content").String(status));
  } else if (type == "ByteFallback") {
    section->byte_fallback = true;
  } else if (type == "Fuse") {
    state->fused = true;
  } else if (type == "Strip") {
    AddStrip(field, *state, section, status);
    state->stripped = true;
  } else if (type == "Metaspace") {
    if (!section->replacements.empty()) field.Fail("must not follow Replace", status);
    const Metaspace metaspace = ReadMetaspace(field, status);
    section->replacements.emplace_back(metaspace.symbol, " ");
    section->space_symbol = metaspace.symbol;
    if (metaspace.scheme != "never") section->leading_space = LeadingSpace::kStripReplacement;
  } else {
    RefuseType(field, type, "Sequence, ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace",
               status);
  }
  state->any = true;
}

void AddTokenIds(const JsonField& special_tokens, const std::string& name, int32_t vocab_size,
                 std::vector<int32_t>* ids, absl::Status* status) {
  for (const JsonField& element : special_tokens.At(name).At("ids").Elements(status)) {
    const int64_t id = element.Integer(status);
    if (id < 0 || id >= vocab_size) {
      element.Fail(absl::StrCat("is ", id, ", must be in [0, ", vocab_size, ")"), status);
    }
    ids->push_back(static_cast<int32_t>(id));
  }
}

void AddTemplate(const JsonField& field, int32_t vocab_size, TemplateSection* section,
                 absl::Status* status) {
  const JsonField single = field.At("single");
  bool text_seen = false;
  for (const JsonField& element : single.Elements(status)) {
    if (element.At("SpecialToken").is_object()) {
      AddTokenIds(field.At("special_tokens"), element.At("SpecialToken").At("id").String(status),
                  vocab_size, text_seen ? &section->after : &section->before, status);
      continue;
    }
    if (element.At("Sequence").At("id").String(status) != "A" || text_seen) {
      element.Fail("must be a SpecialToken, or once the Sequence A", status);
    }
    text_seen = true;
  }
  if (!text_seen) single.Fail("lacks the Sequence A", status);
}

// A pair [piece, id].
int32_t ReadPairId(const JsonField& field, int32_t vocab_size, absl::Status* status) {
  const std::vector<JsonField> pair = field.Elements(status);
  if (pair.size() != 2) {
    field.Fail("must be a pair of a piece and its id", status);
    return 0;
  }
  const int64_t id = pair[1].Integer(status);
  if (id < 0 || id >= vocab_size) {
    field.Fail(absl::StrCat("is ", id, ", must be in [0, ", vocab_size, ")"), status);
  }
  return static_cast<int32_t>(id);
}

void AddPostProcessor(const JsonField& field, int32_t vocab_size, bool* template_seen,
                      TemplateSection* section, absl::Status* status) {
  const std::string type = field.At("type").String(status);
  if (type == "Sequence") {
    for (const JsonField& element : field.At("processors").Elements(status)) {
      AddPostProcessor(element, vocab_size, template_seen, section, status);
    }
  } else if (type == "TemplateProcessing") {
    if (*template_seen) field.Fail("is a second template", status);
    *template_seen = true;
    AddTemplate(field, vocab_size, section, status);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    if (*template_seen) field.Fail("is a second template", status);
    *template_seen = true;
    section->before.push_back(ReadPairId(field.At("cls"), vocab_size, status));
    section->after.push_back(ReadPairId(field.At("sep"), vocab_size, status));
  } else if (type != "ByteLevel") {  // which moves offsets only
    RefuseType(field, type,
               "Sequence, TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel",
               status);
  }
}

}  // namespace

TextPipeline ReadNormalizer(const JsonField& field, absl::Status* status) {
  std::vector<TextStep> steps;
  if (!field.is_null()) AddNormalizer(field, &steps, status);
  return TextPipeline(std::move(steps));
}

PreTokenizerSection ReadPreTokenizer(const JsonField& field, absl::Status* status) {
  std::vector<TextStep> steps;
  bool byte_level = false;
  if (!field.is_null()) AddPreTokenizer(field, &steps, &byte_level, status);
  return {TextPipeline(std::move(steps)), byte_level};
}

DecoderSection ReadDecoder(const JsonField& field, absl::Status* status) {
  DecoderSection section;
  DecoderState state;
  AddDecoder(field, &state, &section, status);
  return section;
}

std::string DecoderSection::Text(absl::string_view piece) const {
  if (byte_level) {
    std::optional<std::string> bytes = ByteLevelBytes(piece);
    return bytes ? *std::move(bytes) : std::string(piece);
  }
  if (byte_fallback) {
    const std::optional<uint8_t> byte = ByteOfPiece(piece);
    if (byte) return std::string(1, static_cast<char>(*byte));
  }
  std::string text(piece);
  for (const auto& [from, to] : replacements) text = absl::StrReplaceAll(text, {{from, to}});
  return text;
}

TemplateSection ReadPostProcessor(const JsonField& field, int32_t vocab_size,
                                  absl::Status* status) {
  TemplateSection section;
  bool template_seen = false;
  if (!field.is_null()) AddPostProcessor(field, vocab_size, &template_seen, &section, status);
  return section;
}

}  // namespace sluice
