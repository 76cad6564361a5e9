// Text to token ids and back.
#ifndef SLUICE_ENGINE_TOKENIZER_TOKENIZER_H_
#define SLUICE_ENGINE_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/tokenizer/tokenizer_parts.h"

namespace sluice {

struct EncodeOptions {
  // Adds what the tokenizer puts around a text, usually BOS in front.
  bool add_special_tokens = true;
  // The text continues an earlier one: no BOS in front, and no space made up before its first word.
  bool continuation = false;
  // Ends the encoding early; what is returned then is a beginning.
  EnoughIds enough = nullptr;
};

// A text as the beginning of a history, and as what goes on with one.
struct SessionIds {
  std::vector<int32_t> start;
  std::vector<int32_t> continued;
};

// Immutable, so any thread may use it at any time. Equal, id for id, to the libraries that define
// the two formats: Hugging Face `tokenizers` and SentencePiece.
class Tokenizer {
 public:
  // Loads `dir`/tokenizer.json, or `dir`/tokenizer.model when there is none. What is broken or not
  // supported is INVALID_ARGUMENT (NOT_FOUND: neither file) with one line that names file, field
  // and rule.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Load(const std::string& dir,
                                                               const TokenizerOptions& options);

  // The same from the bytes of one file.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> LoadFromJson(
      absl::string_view bytes, const TokenizerOptions& options);
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> LoadFromSentencePiece(
      absl::string_view bytes, const TokenizerOptions& options);

  // A tokenizer without a vocabulary: texts give no tokens, and tokens no text. For models that are
  // served by token ids alone.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> None(const TokenizerOptions& options);

  // O(n log n) in the bytes of `text`, which are below 2^31. What is not UTF-8 in it counts as
  // U+FFFD.
  std::vector<int32_t> Encode(absl::string_view text, EncodeOptions options = {}) const;

  // Encode without and with `continuation`, special tokens added to each as said. What the two have
  // in common is encoded once: all of it for byte-level vocabularies, and all but the first word
  // where words are split before they are encoded.
  SessionIds EncodeForSession(absl::string_view text, bool start_special_tokens,
                              bool continued_special_tokens) const;

  // The text of a whole sequence, without its control tokens and without the space that Encode made
  // up in front. Bytes that are no character become U+FFFD; ids that name no piece are skipped.
  std::string Decode(absl::Span<const int32_t> ids) const;

  // The piece as the vocabulary writes it ("▁the", "<0x0A>"); empty for an id without one.
  absl::string_view Piece(int32_t id) const;

  // The bytes that a token adds to a text; empty for a control token. They may begin or end inside
  // a character.
  absl::string_view Text(int32_t id) const;

  // BOS, EOS and the like: they steer the model and are no text.
  bool IsControl(int32_t id) const;

  // True if there is a vocabulary; only None has none.
  bool has_text() const { return !parts_.pieces.empty(); }
  // For people: "tokenizer.json, byte-level BPE".
  const std::string& kind() const { return parts_.kind; }
  // The number of pieces in the file; ids at and above it name nothing.
  int32_t pieces() const { return static_cast<int32_t>(parts_.pieces.size()); }
  // How many more the file has, with ids that the model does not have: they are left out.
  int64_t left_out() const { return parts_.left_out; }
  // The model's, which may be larger than the number of pieces.
  int32_t vocab_size() const { return vocab_size_; }
  std::optional<int32_t> bos_id() const { return parts_.bos_id; }
  std::optional<int32_t> eos_id() const { return parts_.eos_id; }

 private:
  friend class StreamDecoder;

  Tokenizer(TokenizerParts parts, int32_t vocab_size)
      : parts_(std::move(parts)), vocab_size_(vocab_size) {}

  // What is encoded by itself: an added token, or a text.
  struct Unit {
    int32_t id;  // kNoId: a text
    absl::string_view text;
    bool operator==(const Unit& other) const { return id == other.id && text == other.text; }
  };
  // The units of a segment; texts that the pipelines make live in `storage`.
  std::vector<Unit> Cut(TextPiece segment, std::deque<std::string>* storage) const;
  // False: `enough` said so.
  bool EncodeUnit(const Unit& unit, const EnoughIds& enough, BpeScratch* scratch,
                  std::vector<int32_t>* ids) const;

  bool InRange(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < parts_.pieces.size();
  }

  TokenizerParts parts_;
  int32_t vocab_size_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKENIZER_TOKENIZER_H_
