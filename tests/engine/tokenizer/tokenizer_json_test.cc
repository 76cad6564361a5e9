#include "engine/tokenizer/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "tests/engine/tokenizer/small_tokenizers.h"

namespace sluice {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string ErrorOf(const std::string& bytes) {
  const auto tokenizer = Tokenizer::LoadFromJson(bytes, {.vocab_size = kSmallVocabSize});
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tokenizer.status().message()), StartsWith("tokenizer.json: "));
  EXPECT_EQ(tokenizer.status().message().find('\n'), absl::string_view::npos);
  return std::string(tokenizer.status().message());
}

std::string ErrorAfter(const std::function<void(json&)>& change) {
  json file = SmallByteLevelJson();
  change(file);
  return ErrorOf(file.dump());
}

TEST(TokenizerJson, SmallFileLoads) {
  const auto tokenizer =
      Tokenizer::LoadFromJson(SmallByteLevelJson().dump(), {.vocab_size = kSmallVocabSize});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Encode("he he<|end|>"), (std::vector<int32_t>{256, 257, 258}));
  EXPECT_EQ((*tokenizer)->Decode({256, 257, 258}), "he he");
}

// An added token whose characters are all of the alphabet of bytes stands for itself all the same.
TEST(TokenizerJson, AddedTokensDecodeToTheirOwnText) {
  json file = SmallByteLevelJson();
  int id = 260;
  std::vector<int32_t> ids;
  for (const char* content : {"đem", "été", "Ünï", "naïve", "日本"}) {
    file["added_tokens"].push_back({{"id", id}, {"content", content}, {"normalized", false}});
    ids.push_back(id++);
  }
  const auto tokenizer = Tokenizer::LoadFromJson(file.dump(), {.vocab_size = kSmallVocabSize});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Decode(ids), "đemétéÜnïnaïve日本");
  EXPECT_EQ((*tokenizer)->Encode("naïve"), (std::vector<int32_t>{263}));
}

TEST(TokenizerJson, NotTheRightJson) {
  EXPECT_THAT(ErrorOf(SmallByteLevelJson().dump() + std::string("\0x", 2)),
              HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(ErrorOf("{"), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("is not a JSON object"));
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("model: must be an object"));
  EXPECT_THAT(ErrorOf("{} {}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf("{\"a\": \"\xff\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf("{\"a\": \"\\ud800\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf(std::string(1'000'000, '[')), HasSubstr("nested deeper than"));
  EXPECT_THAT(ErrorOf("{\"a\":" + std::string(1'000'000, '[')), HasSubstr("nested deeper than"));
}

// Some checkpoints have fewer rows than their tokenizer has ids: what the model does not have is
// left out, with the merges that make it.
TEST(TokenizerJson, IdsBeyondTheModelAreLeftOut) {
  json file = SmallByteLevelJson();
  file["model"]["vocab"]["Ġhe"] = 301;
  file["added_tokens"][1]["id"] = 300;
  const auto tokenizer = Tokenizer::LoadFromJson(file.dump(), {.vocab_size = kSmallVocabSize});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->left_out(), 2);
  EXPECT_EQ((*tokenizer)->pieces(), 259);
  EXPECT_EQ((*tokenizer)->Encode(" he"), (std::vector<int32_t>{' ', 256}));
  EXPECT_EQ((*tokenizer)->Encode("<tool>").size(), 6u) << "text, not a token";
  EXPECT_EQ((*tokenizer)->Decode((*tokenizer)->Encode(" he<tool>")), " he<tool>");
  const auto all = Tokenizer::LoadFromJson(file.dump(), {.vocab_size = 302});
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ((*all)->left_out(), 0);
  EXPECT_EQ((*all)->Encode(" he"), (std::vector<int32_t>{301}));
}

TEST(TokenizerJson, Vocabulary) {
  const auto vocab_error = [](const std::string& vocab, const std::string& merges = "[]") {
    return ErrorOf(R"({"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":)" + vocab +
                   R"(,"merges":)" + merges + "}}");
  };
  EXPECT_THAT(vocab_error("{}"), HasSubstr("model.vocab: must be an object and not empty"));
  EXPECT_THAT(vocab_error("[]"), HasSubstr("model.vocab: must be an object and not empty"));
  EXPECT_THAT(vocab_error(R"({"a":300})"),
              HasSubstr("model.vocab: no id is below 300, the vocab_size of the model"));
  EXPECT_THAT(vocab_error(R"({"a":-1})"), HasSubstr("id -1"));
  EXPECT_THAT(vocab_error(R"({"a":18446744073709551615})"), HasSubstr("must be in"));
  EXPECT_THAT(vocab_error(R"({"a":1e3})"),
              HasSubstr("model.vocab: the id of piece 0 is not an integer"));
  EXPECT_THAT(vocab_error(R"({"a":"0"})"), HasSubstr("is not an integer"));
  EXPECT_THAT(vocab_error(R"({"a":{}})"), HasSubstr("is not an integer"));
  EXPECT_THAT(vocab_error(R"({"a":0,"b":0})"), HasSubstr(R"(id 0 is that of "a" too)"));
  EXPECT_THAT(vocab_error(R"({"a":0,"a":1})"), HasSubstr("is there twice"));
  EXPECT_THAT(vocab_error(R"({"a\n\u0007":-1})"), HasSubstr(R"("a\n\x07")"));
}

TEST(TokenizerJson, Merges) {
  const auto merges_error = [](json merges) {
    return ErrorAfter([&](json& file) { file["model"]["merges"] = std::move(merges); });
  };
  EXPECT_THAT(merges_error({"h e", "h e"}),
              HasSubstr(R"(model.merges[1]: "h" "e" is there twice)"));
  EXPECT_THAT(merges_error({"h zz"}), HasSubstr(R"("zz" is not in model.vocab)"));
  EXPECT_THAT(merges_error({"h h"}), HasSubstr(R"("hh" is not in model.vocab)"));
  EXPECT_THAT(merges_error({"he"}), HasSubstr("model.merges[0]: is neither"));
  EXPECT_THAT(merges_error({"h e x"}), HasSubstr("is neither"));
  EXPECT_THAT(merges_error({" he"}), HasSubstr("has an empty side"));
  for (const char* merges : {R"([["h"]])", R"([["h","e","x"]])", R"([["h",5]])", R"([["h",["e"]]])",
                             R"([{"h":"e"}])", R"([null])", R"([[]])"}) {
    EXPECT_THAT(merges_error(json::parse(merges)), HasSubstr("is neither")) << merges;
  }
  for (const char* merges : {"null", "{}", R"({"h":5})", "5"}) {
    EXPECT_THAT(merges_error(json::parse(merges)), HasSubstr("model.merges: must be an array"))
        << merges;
  }
  EXPECT_THAT(merges_error({5}), HasSubstr("is neither"));
}

TEST(TokenizerJson, TooMuch) {
  std::string merges = R"({"model":{"merges":["a b")";
  for (int i = 0; i < 10'000'000; ++i) merges += R"(,"a b")";
  EXPECT_THAT(ErrorOf(merges + "]}}"), HasSubstr("model.merges: has more than 4194304 entries"));
  std::string values = "{\"a\":[0";
  for (int i = 0; i < 5'000'000; ++i) values += ",0";
  EXPECT_THAT(ErrorOf(values + "]}"), HasSubstr("has more than 4000000 values"));
  EXPECT_THAT(ErrorAfter([](json& file) {
                file["added_tokens"][0]["content"] = std::string(17 << 20, 'a');
              }),
              HasSubstr("added_tokens: has 17825798 bytes"));
}

TEST(TokenizerJson, NotSupportedIsNamed) {
  const std::pair<std::function<void(json&)>, const char*> cases[] = {
      {[](json& f) { f["model"]["type"] = "Unigram"; },
       "model.type: Unigram is not supported, must be BPE"},
      {[](json& f) { f["model"]["dropout"] = 0.1; }, "model.dropout: must be 0"},
      {[](json& f) { f["model"]["dropout"] = "x"; }, "model.dropout: must be a number"},
      {[](json& f) { f["model"]["end_of_word_suffix"] = "</w>"; },
       "model.end_of_word_suffix: is not supported"},
      {[](json& f) { f["model"]["continuing_subword_prefix"] = "##"; },
       "model.continuing_subword_prefix"},
      {[](json& f) { f["model"]["unk_token"] = "<unk>"; },
       "model.unk_token: is not in model.vocab"},
      {[](json& f) { f["model"]["unk_token"] = 5; }, "model.unk_token: must be a string"},
      {[](json& f) { f["model"]["byte_fallback"] = true; }, "model.byte_fallback: must be false"},
      {[](json& f) {
         f["model"]["byte_fallback"] = true;
         f["pre_tokenizer"] = nullptr;
       },
       "model.byte_fallback: needs <0x00>"},
      {[](json& f) { f["model"]["ignore_merges"] = 1; },
       "model.ignore_merges: must be true or false"},
      {[](json& f) {
         f["normalizer"] = {{"type", "Nmt"}};
       },
       "normalizer.type: Nmt is not supported"},
      {[](json& f) { f["normalizer"] = json::array(); }, "normalizer.type: must be a string"},
      {[](json& f) {
         f["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}};
       },
       "normalizer.normalizers[0].type: Lowercase is not supported"},
      {[](json& f) { f["pre_tokenizer"]["type"] = "BertPreTokenizer"; },
       "pre_tokenizer.type: BertPreTokenizer"},
      {[](json& f) { f["pre_tokenizer"]["use_regex"] = "yes"; },
       "pre_tokenizer.use_regex: must be true or false"},
      {[](json& f) {
         f["pre_tokenizer"] = {
             {"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
       },
       "pre_tokenizer.pattern.Regex: "},
      {[](json& f) {
         f["pre_tokenizer"] = {
             {"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "isolated"}};
       },
       "pre_tokenizer.behavior: must be one of"},
      {[](json& f) {
         f["pre_tokenizer"] = {{"type", "Sequence"},
                               {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "Digits"}}}}};
       },
       "pre_tokenizer.pretokenizers[1]: follows ByteLevel"},
      {[](json& f) {
         f["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "ab"}};
       },
       "pre_tokenizer.replacement: must be one character"},
      {[](json& f) { f["decoder"] = nullptr; }, "decoder.type: must be a string"},
      {[](json& f) { f["decoder"]["type"] = "WordPiece"; },
       "decoder.type: WordPiece is not supported"},
      {[](json& f) {
         f["decoder"] = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
       },
       "decoder: must follow Fuse"},
      {[](json& f) {
         f["post_processor"] = {{"type", "OtherProcessing"}};
       },
       "post_processor.type: OtherProcessing"},
      {[](json& f) {
         f["post_processor"] = {
             {"type", "TemplateProcessing"},
             {"single", {{{"SpecialToken", {{"id", "x"}}}}, {{"Sequence", {{"id", "A"}}}}}},
             {"special_tokens", {{"x", {{"ids", {300}}}}}}};
       },
       "post_processor.special_tokens.x.ids[0]: is 300, must be in [0, 300)"},
      {[](json& f) {
         f["post_processor"] = {{"type", "TemplateProcessing"}, {"single", json::array()}};
       },
       "post_processor.single: lacks the Sequence A"},
      {[](json& f) {
         f["post_processor"] = {{"type", "RobertaProcessing"}, {"cls", {"x", 300}}, {"sep", 1}};
       },
       "post_processor.cls: is 300, must be in [0, 300)"},
      {[](json& f) {
         f["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"x", 3}}, {"sep", {"y"}}};
       },
       "post_processor.sep: must be a pair of a piece and its id"},
      {[](json& f) {
         f["normalizer"] = {{"type", "Lowercase"}};
       },
       "normalizer.type: Lowercase is not supported, must be one of Sequence, Prepend, Replace, "
       "NFC"},
      {[](json& f) { f["added_tokens"] = 1; }, "added_tokens: must be an array"},
      {[](json& f) { f["added_tokens"][0]["id"] = -1; }, "added_tokens[0].id: is -1"},
      {[](json& f) { f["added_tokens"][0]["id"] = 0; }, "added_tokens[0].id: 0 is that of"},
      {[](json& f) { f["added_tokens"][0]["content"] = "he"; }, "but model.vocab has 256"},
      {[](json& f) { f["added_tokens"][1]["content"] = "<|end|>"; }, "is there twice"},
      {[](json& f) { f["added_tokens"][1]["lstrip"] = 0; },
       "added_tokens[1].lstrip: must be true or false"},
  };
  for (const auto& [change, expected] : cases) EXPECT_THAT(ErrorAfter(change), HasSubstr(expected));
}

TEST(TokenizerJson, HolesAndSpareIds) {
  json file = SmallByteLevelJson();
  file["added_tokens"][0]["id"] = 290;
  const auto tokenizer =
      Tokenizer::LoadFromJson(file.dump(), {.vocab_size = kSmallVocabSize, .bos_id = 299});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), kSmallVocabSize);
  for (const int32_t id : {-1, 258, 280, 291, 299, 300, 1 << 30}) {
    EXPECT_EQ((*tokenizer)->Piece(id), "");
    EXPECT_EQ((*tokenizer)->Decode({'a', id, 'b'}),
              std::string({(*tokenizer)->Text('a')[0], (*tokenizer)->Text('b')[0]}));
  }
  EXPECT_EQ((*tokenizer)->Piece(290), "<|end|>");
  EXPECT_TRUE((*tokenizer)->IsControl(290));
  EXPECT_TRUE((*tokenizer)->IsControl(299));
}

TEST(TokenizerJson, ConfigOutOfRange) {
  for (const TokenizerOptions& options :
       {TokenizerOptions{.vocab_size = 0}, TokenizerOptions{.vocab_size = -5},
        TokenizerOptions{.vocab_size = kMaxVocabSize + 1},
        TokenizerOptions{.vocab_size = 300, .bos_id = 300},
        TokenizerOptions{.vocab_size = 300, .eos_id = -1}}) {
    const auto tokenizer = Tokenizer::LoadFromJson(SmallByteLevelJson().dump(), options);
    EXPECT_THAT(std::string(tokenizer.status().message()), StartsWith("config.json: "));
  }
}

}  // namespace
}  // namespace sluice
