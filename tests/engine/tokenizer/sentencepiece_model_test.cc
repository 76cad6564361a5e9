#include "engine/tokenizer/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "tests/engine/tokenizer/small_tokenizers.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using Ids = std::vector<int32_t>;

TEST(SentencePieceModel, SmallModel) {
  const auto tokenizer =
      Tokenizer::LoadFromSentencePiece(SmallSentencePieceModel(), {.vocab_size = 20});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Tokenizer& t = **tokenizer;
  EXPECT_EQ(t.bos_id(), 1);
  EXPECT_EQ(t.eos_id(), 2);
  EXPECT_EQ(t.Encode(""), (Ids{1}));
  EXPECT_EQ(t.Encode("ab"), (Ids{1, 6, 5}));  // "▁a" has the better score
  EXPECT_EQ(t.Encode("ab", {.continuation = true}), (Ids{7}));
  EXPECT_EQ(t.Encode("xyab", {.add_special_tokens = false}), (Ids{3, 0, 7}));
  EXPECT_EQ(t.Decode({1, 6, 5, 0, 2}), "ab \u2047 ");
  EXPECT_EQ(t.Piece(6), "\u2581a");
}

TEST(SentencePieceModel, PiecesOfCharactersThatAreNone) {
  // "xy" merges although neither "x" nor "y" is a piece; "x" alone is unknown.
  const auto tokenizer = Tokenizer::LoadFromSentencePiece(
      SmallSentencePieceModel(SentencePiece("xy", 0, 1)), {.vocab_size = 20});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Encode("xyxzx", {.add_special_tokens = false}), (Ids{3, 8, 0}));
}

TEST(SentencePieceModel, RefusedIsNamed) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "pieces: there are none"},
      {"\xff", "is not a valid protobuf message"},
      {ProtoBytes(1, "\xff"), "field 1 is not a valid protobuf message"},
      {SmallSentencePieceModel("", ProtoInt(3, 1)),
       "trainer_spec.model_type: is 1, must be 2 (BPE)"},
      {SmallSentencePieceModel("", ProtoInt(24, 1)), "trainer_spec.treat_whitespace_as_suffix"},
      {SmallSentencePieceModel("", ProtoInt(35, 1)),
       "trainer_spec.byte_fallback: there is no piece <0x00>"},
      {SmallSentencePieceModel("", "", ProtoBytes(2, "map")),
       "normalizer_spec.precompiled_charsmap"},
      {SmallSentencePieceModel() + ProtoBytes(5, ProtoBytes(2, "map")),
       "denormalizer_spec.precompiled_charsmap"},
      {SmallSentencePieceModel(SentencePiece("", 0, 1)), "pieces[8]: is empty"},
      {SmallSentencePieceModel(SentencePiece("a", 0, 1)), "pieces[8]: is there twice"},
      {SmallSentencePieceModel(SentencePiece("<unk2>", 0, 2)), "pieces[8]: is there twice"},
      {SmallSentencePieceModel(SentencePiece("\xc3", 0, 1)), "pieces[8]: is not valid UTF-8"},
      {SmallSentencePieceModel(SentencePiece("c", std::numeric_limits<float>::quiet_NaN(), 1)),
       "score is not finite"},
      {SmallSentencePieceModel(SentencePiece("c", 0, 5)), "pieces[8]: its type is 5"},
      {SmallSentencePieceModel(SentencePiece("c", 0, 6)), "pieces[8]: is of type BYTE"},
      {SmallSentencePieceModel(SentencePiece(std::string(5000, 'a'), 0, 1)),
       "pieces[8]: has 5000 bytes"},
      {SentencePiece("a", 0, 1) + ProtoBytes(2, ProtoInt(3, 2)), "none is of type UNKNOWN"},
  };
  for (const auto& [bytes, expected] : cases) {
    const auto tokenizer = Tokenizer::LoadFromSentencePiece(bytes, {.vocab_size = 20});
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(tokenizer.status().message()), StartsWith("tokenizer.model: "));
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(expected));
  }
  EXPECT_THAT(
      std::string(Tokenizer::LoadFromSentencePiece(SmallSentencePieceModel(), {.vocab_size = 7})
                      .status()
                      .message()),
      HasSubstr("pieces: more than 7, the vocab_size of the model"));
}

TEST(SentencePieceModel, EveryTruncationIsAStatusOrALoad) {
  const std::string bytes = SmallSentencePieceModel();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const auto tokenizer =
        Tokenizer::LoadFromSentencePiece(bytes.substr(0, size), {.vocab_size = 20});
    EXPECT_FALSE(tokenizer.ok() && size < 100) << size;
  }
}

}  // namespace
}  // namespace sluice
