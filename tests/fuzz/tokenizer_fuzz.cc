// The first byte says what the rest is: 0 a tokenizer.json, 1 a tokenizer.model, else a text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/stream_decoder.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"
#include "tests/engine/tokenizer/small_tokenizers.h"

namespace {

using sluice::Tokenizer;

void Require(bool condition) {
  if (!condition) std::abort();
}

// Whatever the tokenizer: ids name pieces, the stream is the whole, and both are text.
std::string ThereAndBack(const Tokenizer& tokenizer, absl::string_view text) {
  for (const bool continuation : {true, false}) {
    for (const int32_t id : tokenizer.Encode(text, {.continuation = continuation})) {
      Require(id >= 0 && id < tokenizer.vocab_size());
    }
  }
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  const std::string decoded = tokenizer.Decode(ids);
  std::string streamed;
  sluice::StreamDecoder decoder(&tokenizer, /*continuation=*/false);
  for (const int32_t id : ids) {
    const size_t before = streamed.size();
    decoder.Append(id, &streamed);
    Require(decoder.pending().size() <= 3);
    Require(sluice::IsValidUtf8(absl::string_view(streamed).substr(before)));
  }
  decoder.Flush(&streamed);
  Require(streamed == decoded);
  return decoded;
}

void TryFile(const absl::StatusOr<std::unique_ptr<const Tokenizer>>& tokenizer) {
  if (!tokenizer.ok()) {
    Require(!tokenizer.status().message().empty());
    return;
  }
  for (const absl::string_view text :
       {"", " ab  he\n", "h\u00e9 \u2581<s>12<|end|>x", "\xff\xe2\x82"}) {
    ThereAndBack(**tokenizer, text);
  }
  for (int32_t id = -1; id <= (*tokenizer)->vocab_size(); ++id) (*tokenizer)->Decode({id, id});
}

void TryText(absl::string_view text) {
  static const Tokenizer* const byte_level =
      Tokenizer::LoadFromJson(sluice::SmallByteLevelJson().dump(),
                              {.vocab_size = sluice::kSmallVocabSize})
          .value()
          .release();
  static const Tokenizer* const sentencepiece =
      Tokenizer::LoadFromSentencePiece(sluice::SmallSentencePieceModel(), {.vocab_size = 20})
          .value()
          .release();
  ThereAndBack(*sentencepiece, text);
  const std::string decoded = ThereAndBack(*byte_level, text);
  // Its one control token is no text.
  if (text.find("<|end|>") == absl::string_view::npos)
    Require(decoded == sluice::ToValidUtf8(text));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 0:
      TryFile(Tokenizer::LoadFromJson(rest, {.vocab_size = sluice::kSmallVocabSize}));
      break;
    case 1:
      TryFile(Tokenizer::LoadFromSentencePiece(rest, {.vocab_size = sluice::kSmallVocabSize}));
      break;
    default:
      TryText(rest);
  }
  return 0;
}
