#include "engine/tokenizer/tokenizer_json.h"

#include <deque>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/json_file.h"
#include "engine/tokenizer/json_sections.h"
#include "engine/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr int64_t kMostId = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxAddedBytes = 16 << 20;  // of all added tokens together

// For messages: printable, and not long.
std::string Quote(absl::string_view piece) {
  constexpr size_t kShown = 60;
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(piece.substr(0, kShown)),
                      piece.size() > kShown ? "...\"" : "\"");
}

// One reading of one file. The steps are called in order; the first error ends it.
class Loader {
 public:
  Loader(TokenizerJson file, const TokenizerOptions& options)
      : file_(std::move(file)), root_(&file_.rest, ""), options_(options) {}

  absl::StatusOr<TokenizerParts> Run() {
    CheckModel();
    if (status_.ok()) ReadVocab();
    if (status_.ok()) ReadSections();
    if (status_.ok()) ReadAddedTokens();
    if (status_.ok()) BuildBpe();
    if (status_.ok()) BuildTexts();
    if (!status_.ok()) return status_;
    return std::move(parts_);
  }

 private:
  JsonField Model(absl::string_view key) const { return root_.At("model").At(key); }

  void Fail(std::string message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(std::move(message));
  }

  void CheckModel() {
    const JsonField type = Model("type");
    if (!root_.At("model").is_object()) root_.At("model").Fail("must be an object", &status_);
    // Files from before 2020 name no type: they are BPE if their vocabulary is a map with merges.
    if (!type.is_null() && type.String(&status_) != "BPE") {
      type.Fail(absl::StrCat(type.String(&status_), " is not supported, must be BPE"), &status_);
    }
    if (Model("dropout").Number(0, &status_) != 0) Model("dropout").Fail("must be 0", &status_);
    for (const absl::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const JsonField field = Model(key);
      if (!field.is_null() && !field.String(&status_).empty()) {
        field.Fail("is not supported, must be empty", &status_);
      }
    }
  }

  void ReadVocab() {
    if (file_.vocab.empty())
      return Model("vocab").Fail("must be an object and not empty", &status_);
    ids_.reserve(file_.vocab.size());
    for (const auto& [piece, id] : file_.vocab) {
      if (id < 0 || id > kMostId) {
        return Fail(absl::StrCat("model.vocab[", Quote(piece), "]: id ", id, " must be in [0, ",
                                 kMostId, "]"));
      }
      if (id >= options_.vocab_size) {
        left_out_.insert(piece);
        continue;
      }
      if (!ids_.emplace(piece, static_cast<int32_t>(id)).second) {
        return Fail(absl::StrCat("model.vocab[", Quote(piece), "]: is there twice"));
      }
      if (!TakeId(static_cast<int32_t>(id), piece)) {
        return Fail(absl::StrCat("model.vocab[", Quote(piece), "]: id ", id, " is that of ",
                                 Quote(parts_.pieces[id]), " too"));
      }
    }
    parts_.left_out = static_cast<int64_t>(left_out_.size());
    if (ids_.empty()) {
      Fail(absl::StrCat("model.vocab: no id is below ", options_.vocab_size,
                        ", the vocab_size of the model"));
    }
  }

  // False if the id has a piece.
  bool TakeId(int32_t id, const std::string& piece) {
    if (static_cast<size_t>(id) >= parts_.pieces.size()) {
      parts_.pieces.resize(id + 1);
      taken_.resize(id + 1);
    }
    if (taken_[id]) return false;
    taken_[id] = true;
    parts_.pieces[id] = piece;
    return true;
  }

  void ReadSections() {
    parts_.normalizer = ReadNormalizer(root_.At("normalizer"), &status_);
    PreTokenizerSection pre_tokenizer = ReadPreTokenizer(root_.At("pre_tokenizer"), &status_);
    parts_.pre_tokenizer = std::move(pre_tokenizer.steps);
    bpe_.byte_level = pre_tokenizer.byte_level;
    decoder_ = ReadDecoder(root_.At("decoder"), &status_);
    parts_.leading_space = decoder_.leading_space;
    parts_.space_symbol = decoder_.space_symbol;
    parts_.replace_each_byte = decoder_.byte_fallback;
    TemplateSection around =
        ReadPostProcessor(root_.At("post_processor"), options_.vocab_size, &status_);
    parts_.before = std::move(around.before);
    parts_.after = std::move(around.after);
  }

  void ReadAddedTokens() {
    if (root_.At("added_tokens").is_null()) return;
    std::vector<AddedToken> raw;
    std::vector<AddedToken> normalized;
    size_t bytes = 0;
    for (const JsonField& field : root_.At("added_tokens").Elements(&status_)) {
      AddedToken token;
      if (!ReadAddedToken(field, &token) || !status_.ok()) continue;
      bytes += token.content.size();
      if (field.At("special").Bool(false, &status_)) special_.push_back(token.id);
      added_texts_.emplace_back(token.id, token.content);
      if (field.At("normalized").Bool(true, &status_)) {
        token.content = Normalize(token.content);
        normalized_forms_.emplace_back(token.id, token.content);
        normalized.push_back(std::move(token));
      } else {
        raw.push_back(std::move(token));
      }
    }
    if (bytes > kMaxAddedBytes) {
      root_.At("added_tokens")
          .Fail(absl::StrCat("has ", bytes, " bytes of contents, at most ", kMaxAddedBytes,
                             " are allowed"),
                &status_);
    }
    if (!status_.ok()) return;
    parts_.added = AddedTokens(std::move(raw));
    parts_.added_normalized = AddedTokens(std::move(normalized));
  }

  // False if there is nothing to add.
  bool ReadAddedToken(const JsonField& field, AddedToken* token) {
    token->content = field.At("content").String(&status_);
    token->single_word = field.At("single_word").Bool(false, &status_);
    token->lstrip = field.At("lstrip").Bool(false, &status_);
    token->rstrip = field.At("rstrip").Bool(false, &status_);
    const int64_t id = field.At("id").Integer(&status_);
    if (id < 0 || id > kMostId) {
      field.At("id").Fail(absl::StrCat("is ", id, ", must be in [0, ", kMostId, "]"), &status_);
    }
    if (!status_.ok() || token->content.empty()) return false;
    if (id >= options_.vocab_size) {
      if (left_out_.insert(token->content).second) ++parts_.left_out;
      return false;
    }
    token->id = static_cast<int32_t>(id);
    if (!added_ids_.emplace(token->content, token->id).second) {
      field.Fail(absl::StrCat(Quote(token->content), " is there twice"), &status_);
      return false;
    }
    const auto known = ids_.find(token->content);
    if (known != ids_.end() && known->second != token->id) {
      field.At("id").Fail(
          absl::StrCat("is ", id, ", but model.vocab has ", known->second, " for the same piece"),
          &status_);
    } else if (known == ids_.end() && !TakeId(token->id, token->content)) {
      field.At("id").Fail(absl::StrCat(id, " is that of ", Quote(parts_.pieces[id]), " too"),
                          &status_);
    }
    return true;
  }

  std::string Normalize(const std::string& content) const {
    std::deque<std::string> storage;
    std::vector<TextPiece> pieces = {{content, PiecePosition::kStart}};
    parts_.normalizer.Apply(&pieces, &storage);
    return pieces.empty() ? "" : std::string(pieces[0].text);
  }

  void BuildBpe() {
    bpe_.first_internal_id = std::numeric_limits<int32_t>::max();
    bpe_.fuse_unknown = Model("fuse_unk").Bool(false, &status_);
    bpe_.byte_fallback = Model("byte_fallback").Bool(false, &status_);
    parts_.kind = bpe_.byte_level      ? "byte-level BPE"
                  : bpe_.byte_fallback ? "BPE with byte fallback"
                                       : "BPE";
    if (bpe_.byte_level && bpe_.byte_fallback) {
      Model("byte_fallback").Fail("must be false with a ByteLevel pre_tokenizer", &status_);
    }
    const JsonField unknown = Model("unk_token");
    if (!unknown.is_null()) {
      const auto it = ids_.find(unknown.String(&status_));
      if (it == ids_.end()) return unknown.Fail("is not in model.vocab", &status_);
      bpe_.unknown_id = it->second;
    }
    AddSymbols();
    MergeTable merges;
    AddMerges(&merges);
    if (status_.ok()) parts_.bpe = Bpe(std::move(bpe_), std::move(merges));
  }

  void AddSymbols() {
    const bool ignore_merges = Model("ignore_merges").Bool(false, &status_);
    for (const auto& [piece, id] : ids_) {
      if (piece.empty()) continue;
      const bool single = Utf8CharSize(piece) == piece.size();
      if (single) bpe_.characters[Utf8CharCode(piece)] = id;
      if (!bpe_.byte_level) {
        if (ignore_merges) bpe_.whole[piece] = id;
        continue;
      }
      const std::optional<std::string> bytes = ByteLevelBytes(piece);
      if (!bytes) continue;
      if (single) bpe_.bytes[static_cast<uint8_t>((*bytes)[0])] = id;
      if (ignore_merges) bpe_.whole[*bytes] = id;
    }
    if (!bpe_.byte_fallback) return;
    for (int byte = 0; byte < 256; ++byte) {
      const std::string piece = absl::StrFormat("<0x%02X>", byte);
      const auto it = ids_.find(piece);
      if (it == ids_.end()) {
        return Model("byte_fallback")
            .Fail(absl::StrCat("needs ", piece, " in model.vocab"), &status_);
      }
      bpe_.bytes[byte] = it->second;
    }
  }

  void AddMerges(MergeTable* merges) {
    if (!file_.has_merges) return Model("merges").Fail("must be an array", &status_);
    merges->Reserve(file_.merges.size());
    int32_t rank = 0;
    for (const auto& [left, right] : file_.merges) {
      const auto fail = [&](const std::string& rule) {
        Fail(absl::StrCat("model.merges[", rank, "]: ", rule));
      };
      if (left.empty() || right.empty()) return fail("has an empty side");
      const std::string whole = absl::StrCat(left, right);
      int32_t ids[3];
      int i = 0;
      bool possible = true;
      for (const std::string* piece : {&left, &right, &whole}) {
        const auto it = ids_.find(*piece);
        if (it == ids_.end() && left_out_.contains(*piece)) {
          possible = false;
          break;
        }
        if (it == ids_.end()) return fail(absl::StrCat(Quote(*piece), " is not in model.vocab"));
        ids[i++] = it->second;
      }
      if (possible && !merges->Add(ids[0], ids[1], {rank, ids[2]})) {
        return fail(absl::StrCat(Quote(left), " ", Quote(right), " is there twice"));
      }
      ++rank;
    }
  }

  void BuildTexts() {
    parts_.texts.reserve(parts_.pieces.size());
    for (const std::string& piece : parts_.pieces) parts_.texts.push_back(decoder_.Text(piece));
    // Such a token stands for what it matches, spaces that the normalizer put there included.
    for (const auto& [id, form] : normalized_forms_) parts_.texts[id] = decoder_.Text(form);
    // An added token is written as it is, not in the alphabet of bytes.
    if (decoder_.byte_level) {
      for (const auto& [id, text] : added_texts_) parts_.texts[id] = text;
    }
    parts_.control.resize(parts_.pieces.size());
    for (const int32_t id : special_) parts_.control[id] = true;
    parts_.bos_id = options_.bos_id;
    parts_.eos_id = options_.eos_id;
  }

  TokenizerJson file_;
  const JsonField root_;
  const TokenizerOptions& options_;
  absl::Status status_;
  TokenizerParts parts_;
  std::vector<bool> taken_;                              // by id
  absl::flat_hash_map<absl::string_view, int32_t> ids_;  // of model.vocab; views into file_
  absl::flat_hash_map<std::string, int32_t> added_ids_;
  absl::flat_hash_set<std::string> left_out_;  // pieces with ids that the model does not have
  std::vector<std::pair<int32_t, std::string>> normalized_forms_;  // of added tokens, by id
  std::vector<std::pair<int32_t, std::string>> added_texts_;       // as the file writes them, by id
  std::vector<int32_t> special_;
  BpeVocabulary bpe_;
  DecoderSection decoder_;
};

}  // namespace

absl::StatusOr<TokenizerParts> ReadTokenizerJson(absl::string_view bytes,
                                                 const TokenizerOptions& options) {
  absl::StatusOr<TokenizerJson> file = ParseTokenizerJson(bytes);
  if (!file.ok()) return file.status();
  return Loader(*std::move(file), options).Run();
}

}  // namespace sluice
