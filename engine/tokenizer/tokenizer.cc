#include "engine/tokenizer/tokenizer.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <deque>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/sentencepiece_model.h"
#include "engine/tokenizer/stream_decoder.h"
#include "engine/tokenizer/tokenizer_json.h"
#include "engine/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr char kJsonFile[] = "tokenizer.json";
constexpr char kModelFile[] = "tokenizer.model";
constexpr int64_t kMaxFileBytes = 256 << 20;

absl::StatusOr<std::string> ReadFile(const std::string& path, absl::string_view name) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return absl::NotFoundError(name);
    return absl::InvalidArgumentError(absl::StrCat(name, ": cannot be read"));
  }
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(name, ": is no file"));
  if (info.st_size > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": has ", info.st_size, " bytes, at most ",
                                                   kMaxFileBytes, " are allowed"));
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  if (file == nullptr || std::fread(bytes.data(), 1, bytes.size(), file.get()) != bytes.size()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": cannot be read"));
  }
  return bytes;
}

absl::Status CheckOptions(const TokenizerOptions& options) {
  if (options.vocab_size < 1 || options.vocab_size > kMaxVocabSize) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: vocab_size is ",
                                                   options.vocab_size, ", must be in [1, ",
                                                   kMaxVocabSize, "]"));
  }
  for (const auto& [name, id] :
       {std::pair("bos_token_id", options.bos_id), std::pair("eos_token_id", options.eos_id)}) {
    if (id && (*id < 0 || *id >= options.vocab_size)) {
      return absl::InvalidArgumentError(absl::StrCat("config.json: ", name, " is ", *id,
                                                     ", must be in [0, ", options.vocab_size, ")"));
    }
  }
  return absl::OkStatus();
}

// Names the file in what a reader says.
absl::Status InFile(absl::string_view file, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(file, ": ", status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Load(const std::string& dir,
                                                                 const TokenizerOptions& options) {
  absl::StatusOr<std::string> bytes = ReadFile(absl::StrCat(dir, "/", kJsonFile), kJsonFile);
  if (bytes.ok()) return LoadFromJson(*bytes, options);
  if (!absl::IsNotFound(bytes.status())) return bytes.status();
  bytes = ReadFile(absl::StrCat(dir, "/", kModelFile), kModelFile);
  if (bytes.ok()) return LoadFromSentencePiece(*bytes, options);
  if (!absl::IsNotFound(bytes.status())) return bytes.status();
  return absl::NotFoundError(
      absl::StrCat("the model has no tokenizer: neither ", kJsonFile, " nor ", kModelFile));
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::LoadFromJson(
    absl::string_view bytes, const TokenizerOptions& options) {
  const absl::Status checked = CheckOptions(options);
  if (!checked.ok()) return checked;
  absl::StatusOr<TokenizerParts> parts = ReadTokenizerJson(bytes, options);
  if (!parts.ok()) return InFile(kJsonFile, parts.status());
  parts->kind = absl::StrCat(kJsonFile, ", ", parts->kind);
  return std::unique_ptr<const Tokenizer>(new Tokenizer(*std::move(parts), options.vocab_size));
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::LoadFromSentencePiece(
    absl::string_view bytes, const TokenizerOptions& options) {
  const absl::Status checked = CheckOptions(options);
  if (!checked.ok()) return checked;
  absl::StatusOr<TokenizerParts> parts = ReadSentencePieceModel(bytes, options);
  if (!parts.ok()) return InFile(kModelFile, parts.status());
  parts->kind = absl::StrCat(kModelFile, ", ", parts->kind);
  return std::unique_ptr<const Tokenizer>(new Tokenizer(*std::move(parts), options.vocab_size));
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::None(const TokenizerOptions& options) {
  const absl::Status checked = CheckOptions(options);
  if (!checked.ok()) return checked;
  TokenizerParts parts;
  parts.kind = "none, token ids only";
  parts.bos_id = options.bos_id;
  parts.eos_id = options.eos_id;
  return std::unique_ptr<const Tokenizer>(new Tokenizer(std::move(parts), options.vocab_size));
}

std::vector<int32_t> Tokenizer::Encode(absl::string_view text, EncodeOptions options) const {
  std::string repaired;
  if (!IsValidUtf8(text)) {
    repaired = ToValidUtf8(text);
    text = repaired;
  }
  std::vector<int32_t> ids;
  if (options.add_special_tokens && !options.continuation) ids = parts_.before;
  std::deque<std::string> storage;
  BpeScratch scratch;
  std::vector<AddedSegment> segments;
  parts_.added.Split(text, &segments);
  for (const AddedSegment& segment : segments) {
    if (segment.id != kNoId) {
      ids.push_back(segment.id);
      continue;
    }
    const bool at_start = segment.text.data() == text.data();
    const PiecePosition position = !at_start              ? PiecePosition::kInside
                                   : options.continuation ? PiecePosition::kContinued
                                                          : PiecePosition::kStart;
    for (const Unit& unit : Cut({segment.text, position}, &storage)) {
      if (!EncodeUnit(unit, options.enough, &scratch, &ids)) return ids;
    }
    storage.clear();
  }
  if (options.add_special_tokens) {
    ids.insert(ids.end(), parts_.after.begin(), parts_.after.end());
  }
  return ids;
}

SessionIds Tokenizer::EncodeForSession(absl::string_view text, bool start_special_tokens,
                                       bool continued_special_tokens) const {
  std::string repaired;
  if (!IsValidUtf8(text)) {
    repaired = ToValidUtf8(text);
    text = repaired;
  }
  SessionIds out;
  if (start_special_tokens) out.start = parts_.before;
  std::deque<std::string> storage;
  BpeScratch scratch;
  const auto encode = [&](const Unit& unit, std::vector<int32_t>* ids) {
    EncodeUnit(unit, nullptr, &scratch, ids);
  };
  const auto encode_for_both = [&](const Unit& unit) {
    const size_t before = out.start.size();
    encode(unit, &out.start);
    out.continued.insert(out.continued.end(), out.start.begin() + static_cast<int64_t>(before),
                         out.start.end());
  };
  std::vector<AddedSegment> segments;
  parts_.added.Split(text, &segments);
  for (const AddedSegment& segment : segments) {
    if (segment.id != kNoId) {
      encode_for_both({segment.id, {}});
      continue;
    }
    const bool at_start = segment.text.data() == text.data();
    const std::vector<Unit> units =
        Cut({segment.text, at_start ? PiecePosition::kStart : PiecePosition::kInside}, &storage);
    const std::vector<Unit> continued =
        at_start ? Cut({segment.text, PiecePosition::kContinued}, &storage) : units;
    const bool alike = units.size() == continued.size();
    for (size_t i = 0; i < units.size(); ++i) {
      if (alike && units[i] == continued[i]) {
        encode_for_both(units[i]);
      } else {
        encode(units[i], &out.start);
        if (alike) encode(continued[i], &out.continued);
      }
    }
    for (size_t i = 0; !alike && i < continued.size(); ++i) encode(continued[i], &out.continued);
    storage.clear();
  }
  for (const auto& [wanted, ids] : {std::pair(start_special_tokens, &out.start),
                                    std::pair(continued_special_tokens, &out.continued)}) {
    if (wanted) ids->insert(ids->end(), parts_.after.begin(), parts_.after.end());
  }
  return out;
}

std::vector<Tokenizer::Unit> Tokenizer::Cut(TextPiece segment,
                                            std::deque<std::string>* storage) const {
  std::vector<Unit> units;
  std::vector<TextPiece> normalized = {segment};
  parts_.normalizer.Apply(&normalized, storage);
  if (normalized.empty()) return units;
  const absl::string_view text = normalized[0].text;
  std::vector<AddedSegment> segments;
  parts_.added_normalized.Split(text, &segments);
  for (const AddedSegment& part : segments) {
    if (part.id != kNoId) {
      units.push_back({part.id, {}});
      continue;
    }
    const bool at_start = part.text.data() == text.data();
    std::vector<TextPiece> pieces = {
        {part.text, at_start ? segment.position : PiecePosition::kInside}};
    parts_.pre_tokenizer.Apply(&pieces, storage);
    for (const TextPiece& piece : pieces) units.push_back({kNoId, piece.text});
  }
  return units;
}

bool Tokenizer::EncodeUnit(const Unit& unit, const EnoughIds& enough, BpeScratch* scratch,
                           std::vector<int32_t>* ids) const {
  if (unit.id == kNoId) return parts_.bpe.Encode(unit.text, scratch, ids, enough);
  ids->push_back(unit.id);
  return true;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids) const {
  std::string text;
  StreamDecoder decoder(this, /*continuation=*/false);
  for (const int32_t id : ids) decoder.Append(id, &text);
  decoder.Flush(&text);
  return text;
}

absl::string_view Tokenizer::Piece(int32_t id) const {
  return InRange(id) ? parts_.pieces[id] : absl::string_view();
}

absl::string_view Tokenizer::Text(int32_t id) const {
  return InRange(id) && !IsControl(id) ? parts_.texts[id] : absl::string_view();
}

bool Tokenizer::IsControl(int32_t id) const {
  return id == parts_.bos_id || id == parts_.eos_id || (InRange(id) && parts_.control[id]);
}

}  // namespace sluice
