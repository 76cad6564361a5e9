#include "engine/model_tokenizer.h"

#include "gtest/gtest.h"
#include "tests/engine/tokenizer/small_tokenizers.h"

namespace sluice {
namespace {

ModelConfig Padded(int64_t vocab, int64_t first_unsampled) {
  ModelConfig config;
  config.spec.vocab = vocab;
  config.spec.first_unsampled = first_unsampled;
  return config;
}

std::unique_ptr<const Tokenizer> Small(int32_t vocab) {
  return *Tokenizer::LoadFromJson(SmallByteLevelJson().dump(), {.vocab_size = vocab});
}

TEST(ModelTokenizerTest, NoTokenWithoutAPieceIsSampled) {
  const auto tokenizer = Small(kSmallVocabSize);
  ASSERT_EQ(tokenizer->pieces(), 260);
  EXPECT_EQ(SampledTokens(SpecWithTokenizer(Padded(kSmallVocabSize, 0), *tokenizer)), 260);
  EXPECT_EQ(SampledTokens(SpecWithTokenizer(Padded(kSmallVocabSize, 250), *tokenizer)), 250)
      << "the config knows of more padding";
}

TEST(ModelTokenizerTest, TokensThatEndATextAreSampled) {
  const auto tokenizer = Small(kSmallVocabSize);
  ModelConfig config = Padded(kSmallVocabSize, 0);
  config.eos_token_ids = {1, 270};
  EXPECT_EQ(SampledTokens(SpecWithTokenizer(config, *tokenizer)), 271);
}

TEST(ModelTokenizerTest, PiecesThatTheModelDoesNotHaveAreSaid) {
  EXPECT_EQ(TokenizerNote(*Small(kSmallVocabSize)), "");
  EXPECT_EQ(
      TokenizerNote(*Small(259)),
      "pieces of the tokenizer with ids from 259 on, the vocab_size of the model, are left out: "
      "1");
}

TEST(ModelTokenizerTest, WithoutATokenizerTheConfigDecides) {
  const auto none = *Tokenizer::None({.vocab_size = kSmallVocabSize});
  EXPECT_EQ(SampledTokens(SpecWithTokenizer(Padded(kSmallVocabSize, 0), *none)), kSmallVocabSize);
  EXPECT_EQ(SampledTokens(SpecWithTokenizer(Padded(kSmallVocabSize, 277), *none)), 277);
}

}  // namespace
}  // namespace sluice
