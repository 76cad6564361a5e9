#include "engine/tokenizer/stream_decoder.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/tokenizer/utf8.h"
#include "tests/engine/tokenizer/small_tokenizers.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

class StreamDecoderTest : public ::testing::Test {
 protected:
  const std::unique_ptr<const Tokenizer> byte_level_ =
      *Tokenizer::LoadFromJson(SmallByteLevelJson().dump(), {.vocab_size = kSmallVocabSize});
  const std::unique_ptr<const Tokenizer> bundled_ = *Tokenizer::Load(
      SourcePath("deploy/models/classics-12m"), {.vocab_size = 4096, .bos_id = 1, .eos_id = 2});
};

std::string Stream(StreamDecoder* decoder, const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) decoder->Append(id, &text);
  return text;
}

TEST_F(StreamDecoderTest, WholeCharactersOnly) {
  StreamDecoder decoder(byte_level_.get(), true);
  EXPECT_EQ(Stream(&decoder, {0xF0, 0x9F, 0x99}), "");
  EXPECT_EQ(decoder.pending(), "\xF0\x9F\x99");
  EXPECT_EQ(Stream(&decoder, {0x82, 'a'}), "🙂a");
  EXPECT_EQ(decoder.pending(), "");
}

TEST_F(StreamDecoderTest, InvalidBytes) {
  StreamDecoder decoder(byte_level_.get(), true);
  EXPECT_EQ(Stream(&decoder, {0xF0, 0x9F, 'a', 0x80, 0xE2}), "\uFFFDa\uFFFD");
  std::string text;
  decoder.Flush(&text);
  decoder.Flush(&text);
  EXPECT_EQ(text, "\uFFFD");
}

TEST_F(StreamDecoderTest, ByteFallbackReplacesEachByte) {
  StreamDecoder decoder(bundled_.get(), true);
  EXPECT_EQ(Stream(&decoder, {3 + 0xF0, 3 + 0x9F, 261}), "\uFFFD\uFFFD a");
}

TEST_F(StreamDecoderTest, AForkGoesItsOwnWay) {
  StreamDecoder decoder(byte_level_.get(), true);
  Stream(&decoder, {0xC3});
  StreamDecoder fork = decoder;
  EXPECT_EQ(Stream(&decoder, {0xA9}), "é");
  EXPECT_EQ(Stream(&fork, {0xA8}), "è");
}

TEST_F(StreamDecoderTest, ResumesFromPendingBytes) {
  StreamDecoder decoder(byte_level_.get(), true);
  decoder.SetPending("\xE2\x82");
  EXPECT_EQ(Stream(&decoder, {0xAC}), "€");
  decoder.SetPending("x\x80\xE2");  // only what can become a character is taken
  EXPECT_EQ(decoder.pending(), "\xE2");
  decoder.SetPending("");
  EXPECT_EQ(decoder.pending(), "");
}

TEST_F(StreamDecoderTest, ControlTokensAreNoText) {
  StreamDecoder decoder(byte_level_.get(), true);
  EXPECT_EQ(Stream(&decoder, {'a', 258, 'b', 259}), "ab<tool>");
}

TEST_F(StreamDecoderTest, LeadingSpaceIsTextWhenContinuing) {
  StreamDecoder start(bundled_.get(), false);
  EXPECT_EQ(Stream(&start, {1, 261, 261}), "a a");
  StreamDecoder continued(bundled_.get(), true);
  EXPECT_EQ(Stream(&continued, {261, 261}), " a a");
}

// Prompt and generated text, put together, are the text of all ids, wherever the cut.
TEST_F(StreamDecoderTest, CutAnywhere) {
  const std::vector<int32_t> ids = bundled_->Encode("Hello wörld 🙂 日本 \u2581 <s>\n");
  const std::string whole = bundled_->Decode(ids);
  for (size_t cut = 2; cut < ids.size(); ++cut) {
    std::string text;
    StreamDecoder prompt(bundled_.get(), false);
    for (size_t i = 0; i < cut; ++i) prompt.Append(ids[i], &text);
    StreamDecoder generated(bundled_.get(), true);
    generated.SetPending(prompt.pending());
    for (size_t i = cut; i < ids.size(); ++i) {
      generated.Append(ids[i], &text);
      EXPECT_TRUE(IsValidUtf8(text));
    }
    generated.Flush(&text);
    EXPECT_EQ(text, whole) << cut;
  }
}

}  // namespace
}  // namespace sluice
