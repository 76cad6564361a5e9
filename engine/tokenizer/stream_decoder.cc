#include "engine/tokenizer/stream_decoder.h"

#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "engine/tokenizer/utf8.h"

namespace sluice {

void StreamDecoder::Append(int32_t id, std::string* out) {
  if (!tokenizer_->InRange(id) || tokenizer_->IsControl(id)) return;
  if (at_start_) {
    AppendFirst(id, out);
  } else {
    AppendBytes(tokenizer_->Text(id), out);
  }
}

void StreamDecoder::AppendFirst(int32_t id, std::string* out) {
  const TokenizerParts& parts = tokenizer_->parts_;
  const absl::string_view piece = tokenizer_->Piece(id);
  absl::string_view text = tokenizer_->Text(id);
  at_start_ = false;
  switch (parts.leading_space) {
    case LeadingSpace::kKeep:
      break;
    case LeadingSpace::kStripOne:
      at_start_ = text.empty();
      absl::ConsumePrefix(&text, " ");
      break;
    case LeadingSpace::kStripPiece:
      if (absl::StartsWith(piece, parts.space_symbol)) {
        absl::ConsumePrefix(&text, " ");
      } else {
        at_start_ = text.empty();
      }
      break;
    case LeadingSpace::kStripPieces:
      if (absl::StartsWith(piece, parts.space_symbol)) absl::ConsumePrefix(&text, " ");
      at_start_ = text.empty();
      break;
    case LeadingSpace::kStripReplacement:
      if (absl::StrContains(piece, parts.space_symbol)) {
        AppendBytes(absl::StrReplaceAll(piece, {{parts.space_symbol, ""}}), out);
        return;
      }
      break;
  }
  AppendBytes(text, out);
}

void StreamDecoder::AppendBytes(absl::string_view bytes, std::string* out) {
  std::string joined;
  if (pending_size_ > 0) {
    joined = absl::StrCat(pending(), bytes);
    bytes = joined;
    pending_size_ = 0;
  }
  while (!bytes.empty()) {
    const Utf8Prefix prefix = ReadUtf8Prefix(bytes);
    switch (prefix.kind) {
      case Utf8Kind::kWhole:
        out->append(bytes.data(), prefix.size);
        break;
      case Utf8Kind::kIncomplete:
        std::memcpy(pending_, bytes.data(), prefix.size);
        pending_size_ = prefix.size;
        return;
      case Utf8Kind::kInvalid:
        AppendReplacement(prefix.size, out);
        break;
    }
    bytes.remove_prefix(prefix.size);
  }
}

void StreamDecoder::AppendReplacement(size_t invalid_bytes, std::string* out) const {
  const size_t count = tokenizer_->parts_.replace_each_byte ? invalid_bytes : 1;
  for (size_t i = 0; i < count; ++i) {
    out->append(kReplacementCharacter.data(), kReplacementCharacter.size());
  }
}

void StreamDecoder::Flush(std::string* out) {
  if (pending_size_ > 0) AppendReplacement(pending_size_, out);
  pending_size_ = 0;
}

void StreamDecoder::SetPending(absl::string_view bytes) {
  const absl::string_view held = bytes.substr(bytes.size() - IncompleteSuffix(bytes));
  pending_size_ = static_cast<uint8_t>(held.size());
  if (!held.empty()) std::memcpy(pending_, held.data(), held.size());
}

}  // namespace sluice
