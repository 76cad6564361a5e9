#include "engine/tokenizer/sentencepiece_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/proto_reader.h"
#include "engine/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr absl::string_view kSpaceSymbol = "\xE2\x96\x81";
constexpr size_t kMaxPieceBytes = 4096;

// The numbers and defaults of sentencepiece_model.proto.
enum PieceType {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};
constexpr int32_t kTypeBpe = 2;

struct Piece {
  absl::string_view text;
  float score = 0;
  int32_t type = kNormal;
};

struct TrainerSpec {
  int32_t model_type = 1;
  bool whitespace_as_suffix = false;
  bool byte_fallback = false;
  int32_t bos_id = 1;
  int32_t eos_id = 2;
  absl::string_view unknown_surface = " \xE2\x81\x87 ";
};

struct NormalizerSpec {
  bool has_charsmap = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

struct Model {
  std::vector<Piece> pieces;
  TrainerSpec trainer;
  NormalizerSpec normalizer;
  bool has_denormalizer = false;
};

using Wire = ProtoField::Wire;

bool ParsePiece(absl::string_view bytes, Piece* piece) {
  ProtoReader reader(bytes);
  ProtoField field;
  while (reader.Next(&field)) {
    if (field.number == 1 && field.wire == Wire::kBytes) piece->text = field.bytes;
    if (field.number == 2 && field.wire == Wire::kFixed32) piece->score = field.AsFloat();
    if (field.number == 3 && field.wire == Wire::kVarint) piece->type = field.AsInt32();
  }
  return !reader.failed();
}

bool ParseTrainer(absl::string_view bytes, TrainerSpec* spec) {
  ProtoReader reader(bytes);
  ProtoField field;
  while (reader.Next(&field)) {
    if (field.number == 44 && field.wire == Wire::kBytes) spec->unknown_surface = field.bytes;
    if (field.wire != Wire::kVarint) continue;
    if (field.number == 3) spec->model_type = field.AsInt32();
    if (field.number == 24) spec->whitespace_as_suffix = field.AsBool();
    if (field.number == 35) spec->byte_fallback = field.AsBool();
    if (field.number == 41) spec->bos_id = field.AsInt32();
    if (field.number == 42) spec->eos_id = field.AsInt32();
  }
  return !reader.failed();
}

bool ParseNormalizer(absl::string_view bytes, NormalizerSpec* spec) {
  ProtoReader reader(bytes);
  ProtoField field;
  while (reader.Next(&field)) {
    if (field.number == 2 && field.wire == Wire::kBytes) spec->has_charsmap = !field.bytes.empty();
    if (field.wire != Wire::kVarint) continue;
    if (field.number == 3) spec->add_dummy_prefix = field.AsBool();
    if (field.number == 4) spec->remove_extra_whitespaces = field.AsBool();
    if (field.number == 5) spec->escape_whitespaces = field.AsBool();
  }
  return !reader.failed();
}

// Returns the rule that is broken, or "".
std::string ParseModel(absl::string_view bytes, int32_t vocab_size, Model* model) {
  ProtoReader reader(bytes);
  ProtoField field;
  while (reader.Next(&field)) {
    if (field.wire != Wire::kBytes) continue;
    bool parsed = true;
    if (field.number == 1) {
      if (model->pieces.size() == static_cast<size_t>(vocab_size)) {
        return absl::StrCat("pieces: more than ", vocab_size, ", the vocab_size of the model");
      }
      parsed = ParsePiece(field.bytes, &model->pieces.emplace_back());
    } else if (field.number == 2) {
      parsed = ParseTrainer(field.bytes, &model->trainer);
    } else if (field.number == 3) {
      parsed = ParseNormalizer(field.bytes, &model->normalizer);
    } else if (field.number == 5) {
      NormalizerSpec denormalizer;
      parsed = ParseNormalizer(field.bytes, &denormalizer);
      model->has_denormalizer = denormalizer.has_charsmap;
    }
    if (!parsed) return absl::StrCat("field ", field.number, " is not a valid protobuf message");
  }
  return reader.failed() ? "is not a valid protobuf message" : "";
}

class Loader {
 public:
  Loader(Model model, const TokenizerOptions& options)
      : model_(std::move(model)), options_(options) {}

  absl::StatusOr<TokenizerParts> Run() {
    CheckSpecs();
    if (error_.empty()) ReadPieces();
    if (error_.empty()) CheckPieces();
    if (!error_.empty()) return absl::InvalidArgumentError(error_);
    BuildPipeline();
    BuildSpecialTokens();
    BuildBpe();
    return std::move(parts_);
  }

 private:
  void Fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
  }

  void FailPiece(size_t id, absl::string_view rule) {
    Fail(absl::StrCat("pieces[", id, "]: ", rule));
  }

  void CheckSpecs() {
    if (model_.pieces.empty()) Fail("pieces: there are none");
    if (model_.trainer.model_type != kTypeBpe) {
      Fail(absl::StrCat("trainer_spec.model_type: is ", model_.trainer.model_type,
                        ", must be 2 (BPE)"));
    }
    if (model_.trainer.whitespace_as_suffix) {
      Fail("trainer_spec.treat_whitespace_as_suffix: must be false");
    }
    if (model_.normalizer.has_charsmap) {
      Fail("normalizer_spec.precompiled_charsmap: must be empty (the identity normalizer)");
    }
    if (model_.has_denormalizer) Fail("denormalizer_spec.precompiled_charsmap: must be empty");
  }

  void ReadPieces() {
    normal_.reserve(model_.pieces.size());
    for (size_t i = 0; i < model_.pieces.size() && error_.empty(); ++i) ReadPiece(i);
  }

  void ReadPiece(size_t i) {
    const Piece& piece = model_.pieces[i];
    const int32_t id = static_cast<int32_t>(i);
    if (piece.text.empty()) return FailPiece(i, "is empty");
    if (piece.text.size() > kMaxPieceBytes) {
      return FailPiece(i, absl::StrCat("has ", piece.text.size(), " bytes, at most ",
                                       kMaxPieceBytes, " are allowed"));
    }
    if (!IsValidUtf8(piece.text)) return FailPiece(i, "is not valid UTF-8");
    if (!std::isfinite(piece.score)) return FailPiece(i, "its score is not finite");
    std::string text = absl::StrReplaceAll(piece.text, {{kSpaceSymbol, " "}});
    bool known = false;
    switch (piece.type) {
      case kNormal:
        known = !normal_.emplace(piece.text, id).second;
        break;
      case kUserDefined:
        if (model_.normalizer.remove_extra_whitespaces && absl::StrContains(piece.text, " ")) {
          return FailPiece(i,
                           "is USER_DEFINED with a space, not supported with "
                           "normalizer_spec.remove_extra_whitespaces");
        }
        known = !normal_.emplace(piece.text, id).second;
        fixed_texts_.emplace_back(piece.text);
        bpe_.fixed_ids.push_back(id);
        break;
      case kUnknown:
        known = bpe_.unknown_id != kNoId || !reserved_.emplace(piece.text, id).second;
        bpe_.unknown_id = id;
        text = std::string(model_.trainer.unknown_surface);
        break;
      case kControl:
        known = !reserved_.emplace(piece.text, id).second;
        text.clear();
        break;
      case kByte: {
        const auto byte = ByteOfPiece(piece.text);
        if (!byte) return FailPiece(i, "is of type BYTE but not written <0xNN>");
        known = bpe_.bytes[*byte] != kNoId;
        bpe_.bytes[*byte] = id;
        text = std::string(1, static_cast<char>(*byte));
        break;
      }
      default:
        return FailPiece(i,
                         absl::StrCat("its type is ", piece.type,
                                      ", must be NORMAL, UNKNOWN, CONTROL, USER_DEFINED or BYTE"));
    }
    if (known) return FailPiece(i, "is there twice");
    parts_.pieces.emplace_back(piece.text);
    parts_.texts.push_back(std::move(text));
    parts_.control.push_back(piece.type == kControl);
  }

  void CheckPieces() {
    if (bpe_.unknown_id == kNoId) Fail("pieces: none is of type UNKNOWN");
    if (!IsValidUtf8(model_.trainer.unknown_surface)) {
      Fail("trainer_spec.unk_surface: is not valid UTF-8");
    }
    bpe_.byte_fallback = model_.trainer.byte_fallback;
    parts_.kind = bpe_.byte_fallback ? "SentencePiece BPE with byte fallback" : "SentencePiece BPE";
    for (int byte = 0; byte < 256; ++byte) {
      if (bpe_.byte_fallback && bpe_.bytes[byte] == kNoId) {
        Fail(absl::StrFormat("trainer_spec.byte_fallback: there is no piece <0x%02X>", byte));
      }
    }
  }

  void BuildPipeline() {
    const NormalizerSpec& spec = model_.normalizer;
    const std::string space(spec.escape_whitespaces ? kSpaceSymbol : " ");
    std::vector<TextStep> steps;
    if (spec.remove_extra_whitespaces) steps.push_back(SqueezeSpacesStep{space});
    if (spec.add_dummy_prefix) {
      steps.push_back(PrefixStep{.prefix = " ", .text_start_only = true});
    }
    if (spec.escape_whitespaces) {
      steps.push_back(ReplaceStep{Pattern::Literal(" "), std::string(kSpaceSymbol)});
    }
    parts_.normalizer = TextPipeline(std::move(steps));
    parts_.space_symbol = std::string(kSpaceSymbol);
    parts_.replace_each_byte = true;
    if (spec.remove_extra_whitespaces) {
      parts_.leading_space = LeadingSpace::kStripPieces;
    } else if (spec.add_dummy_prefix) {
      parts_.leading_space = LeadingSpace::kStripPiece;
    }
  }

  void BuildSpecialTokens() {
    const auto file_id = [&](int32_t id) -> std::optional<int32_t> {
      const bool control =
          id >= 0 && static_cast<size_t>(id) < parts_.control.size() && parts_.control[id];
      return control ? std::optional<int32_t>(id) : std::nullopt;
    };
    parts_.bos_id = options_.bos_id ? options_.bos_id : file_id(model_.trainer.bos_id);
    parts_.eos_id = options_.eos_id ? options_.eos_id : file_id(model_.trainer.eos_id);
    if (parts_.bos_id) parts_.before.push_back(*parts_.bos_id);
  }

  void BuildBpe() {
    bpe_.first_internal_id = static_cast<int32_t>(model_.pieces.size());
    bpe_.fuse_unknown = true;
    bpe_.fixed = LongestMatcher(fixed_texts_);
    CollectCharacters();
    MergeTable merges;
    AddMerges(&merges);
    parts_.bpe = Bpe(std::move(bpe_), std::move(merges));
  }

  // Every character of every piece is a symbol; those that are no piece get ids behind the pieces.
  void CollectCharacters() {
    int32_t next_internal = bpe_.first_internal_id;
    for (const auto& [text, id] : normal_) {
      if (Utf8CharSize(text) == text.size()) bpe_.characters[Utf8CharCode(text)] = id;
    }
    for (const Piece& piece : model_.pieces) {
      if (piece.type != kNormal && piece.type != kUserDefined) continue;
      for (absl::string_view rest = piece.text; !rest.empty();
           rest.remove_prefix(Utf8CharSize(rest))) {
        if (bpe_.characters.emplace(Utf8CharCode(rest), next_internal).second) ++next_internal;
      }
    }
  }

  // The symbol that `text` is, or kNoId.
  int32_t SymbolOf(absl::string_view text) const {
    const auto piece = normal_.find(text);
    if (piece != normal_.end()) return piece->second;
    if (Utf8CharSize(text) != text.size()) return kNoId;
    return bpe_.characters.find(Utf8CharCode(text))->second;
  }

  // Any two neighbours merge whose texts together are a piece; the higher that one's score, the
  // sooner.
  void AddMerges(MergeTable* merges) {
    std::vector<int32_t> order(model_.pieces.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return model_.pieces[a].score > model_.pieces[b].score;
    });
    int32_t rank = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      const Piece& piece = model_.pieces[order[i]];
      if (i > 0 && piece.score < model_.pieces[order[i - 1]].score) ++rank;
      if (piece.type != kNormal && piece.type != kUserDefined) continue;
      for (size_t cut = Utf8CharSize(piece.text); cut < piece.text.size();
           cut += Utf8CharSize(piece.text.substr(cut))) {
        const int32_t left = SymbolOf(piece.text.substr(0, cut));
        const int32_t right = left == kNoId ? kNoId : SymbolOf(piece.text.substr(cut));
        if (right != kNoId) merges->Add(left, right, {rank, order[i]});
      }
    }
  }

  Model model_;
  const TokenizerOptions& options_;
  std::string error_;
  TokenizerParts parts_;
  BpeVocabulary bpe_;
  absl::flat_hash_map<absl::string_view, int32_t>
      normal_;  // what text can become; views into the file
  absl::flat_hash_map<absl::string_view, int32_t> reserved_;
  std::vector<std::string> fixed_texts_;
};

}  // namespace

absl::StatusOr<TokenizerParts> ReadSentencePieceModel(absl::string_view bytes,
                                                      const TokenizerOptions& options) {
  Model model;
  const std::string error = ParseModel(bytes, options.vocab_size, &model);
  if (!error.empty()) return absl::InvalidArgumentError(error);
  return Loader(std::move(model), options).Run();
}

}  // namespace sluice
