#include "server/http/openai_response.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_engine.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

AnswerFormat Format(size_t prompts = 1, int32_t n = 1) {
  AnswerFormat format;
  format.n = n;
  format.id = "cmpl-1";
  format.created = 7;
  format.model = "m";
  format.fingerprint = "fp_1";
  format.prompts.assign(prompts, AnswerPrompt(&BundledTokenizer(), {1, 300}, false, false));
  return format;
}

DeltaEvent Delta(const char* text, int32_t index = 0) {
  DeltaEvent delta;
  delta.index = index;
  delta.text = text;
  return delta;
}

FinishedEvent Finished(FinishReason reason, int32_t index = 0) {
  FinishedEvent finished;
  finished.index = index;
  finished.reason = reason;
  finished.usage.new_tokens = 3;
  return finished;
}

int32_t TokenOf(const char* text) {
  const std::vector<int32_t> ids =
      BundledTokenizer().Encode(text, {.add_special_tokens = false, .continuation = true});
  EXPECT_EQ(ids.size(), 1u) << text;
  return ids.front();
}

TokenLogprob Scored(int32_t token, float logprob) {
  TokenLogprob out;
  out.token = token;
  out.logprob = logprob;
  return out;
}

// The JSON of the server-sent events; "[DONE]" is checked and left out.
std::vector<Json> Chunks(absl::string_view text) {
  std::vector<Json> out;
  for (absl::string_view event : absl::StrSplit(text, "\n\n", absl::SkipEmpty())) {
    EXPECT_TRUE(absl::ConsumePrefix(&event, "data: ")) << event;
    if (event != "[DONE]") out.push_back(Json::parse(std::string(event)));
  }
  return out;
}

TEST(OpenAiResponseTest, AnswersWhole) {
  OpenAiAnswer answer(Format(), &BundledTokenizer());
  EXPECT_EQ(answer.Add(0, {StartedEvent{5, 1}, Delta("a"), Delta("b\n")}), "");
  EXPECT_EQ(answer.Add(0, {Finished(FinishReason::kMaxTokens)}), "");
  EXPECT_EQ(Json::parse(answer.Whole()), Json::parse(R"({
    "id":"cmpl-1","object":"text_completion","created":7,"model":"m","system_fingerprint":"fp_1",
    "choices":[{"index":0,"text":"ab\n","logprobs":null,"finish_reason":"length",
                "stop_reason":null}],
    "usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,
             "prompt_tokens_details":{"cached_tokens":0}}})"));
}

TEST(OpenAiResponseTest, NumbersChoicesOfEachPrompt) {
  OpenAiAnswer answer(Format(2, 2), &BundledTokenizer());
  answer.Add(1, {StartedEvent{2, 1}, Delta("d", 1), Delta("c", 0)});
  answer.Add(0, {StartedEvent{3, 1}, Delta("b", 1), Delta("a", 0)});
  for (const size_t prompt : {0, 1}) {
    answer.Add(prompt, {Finished(FinishReason::kEos, 0), Finished(FinishReason::kStopString, 1)});
  }
  const Json whole = Json::parse(answer.Whole());
  ASSERT_EQ(whole["choices"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(whole["choices"][i]["index"], i);
    EXPECT_EQ(whole["choices"][i]["text"], std::string(1, static_cast<char>('a' + i)));
    EXPECT_EQ(whole["choices"][i]["finish_reason"], "stop");
  }
  EXPECT_EQ(whole["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(whole["usage"]["completion_tokens"], 12);
}

TEST(OpenAiResponseTest, StreamsChunks) {
  AnswerFormat format = Format();
  format.stream = format.include_usage = true;
  OpenAiAnswer answer(format, &BundledTokenizer());
  EXPECT_EQ(answer.Add(0, {StartedEvent{5, 1}}), "") << "nothing to tell yet";
  const std::vector<Json> chunks =
      Chunks(answer.Add(0, {Delta("a"), Finished(FinishReason::kEos)}));
  ASSERT_EQ(chunks.size(), 2u);
  EXPECT_EQ(chunks[0]["choices"], Json::parse(R"([{"index":0,"text":"a","logprobs":null,
                                                   "finish_reason":null}])"));
  EXPECT_TRUE(chunks[0]["usage"].is_null());
  EXPECT_EQ(chunks[1]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(chunks[1]["choices"][0]["text"], "") << "told once";
  const std::string end = answer.StreamEnd();
  EXPECT_TRUE(absl::EndsWith(end, "}\n\ndata: [DONE]\n\n")) << end;
  EXPECT_EQ(Chunks(end).front()["choices"], Json::array());
  EXPECT_EQ(Chunks(end).front()["usage"]["total_tokens"], 8);
}

TEST(OpenAiResponseTest, ChatTellsTheRoleOnce) {
  AnswerFormat format = Format();
  format.chat = format.stream = true;
  OpenAiAnswer answer(format, &BundledTokenizer());
  const std::vector<Json> chunks =
      Chunks(answer.Add(0, {Delta("a"), Delta("b"), Finished(FinishReason::kEos)}));
  ASSERT_EQ(chunks.size(), 3u);
  EXPECT_EQ(chunks[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(chunks[0]["choices"][0]["delta"], Json::parse(R"({"role":"assistant","content":"a"})"));
  EXPECT_EQ(chunks[1]["choices"][0]["delta"], Json::parse(R"({"content":"b"})"));
  EXPECT_EQ(chunks[2]["choices"][0]["delta"], Json::object());
  EXPECT_EQ(answer.StreamEnd(), "data: [DONE]\n\n");
}

TEST(OpenAiResponseTest, TellsLogprobs) {
  AnswerFormat format = Format();
  format.logprobs = true;
  OpenAiAnswer answer(format, &BundledTokenizer());
  DeltaEvent delta = Delta(" the sea");
  delta.logprobs = {Scored(TokenOf(" the"), -0.5f), Scored(TokenOf(" sea"), -1.5f)};
  delta.logprobs[1].alternatives = {{TokenOf(" the"), -0.25f}, {TokenOf(" sea"), -1.5f}};
  answer.Add(0, {delta, Finished(FinishReason::kMaxTokens)});
  EXPECT_EQ(Json::parse(answer.Whole())["choices"][0]["logprobs"], Json::parse(R"({
    "tokens":[" the"," sea"],"token_logprobs":[-0.5,-1.5],"text_offset":[0,4],
    "top_logprobs":[{" the":-0.5},{" sea":-1.5," the":-0.25}]})"));
}

TEST(OpenAiResponseTest, AnEchoIsScoredFromItsSecondToken) {
  AnswerFormat format = Format();
  format.logprobs = format.prompt_logprobs = true;
  const std::vector<int32_t> prompt =
      BundledTokenizer().Encode("the sea", {.add_special_tokens = false, .continuation = false});
  ASSERT_EQ(prompt.size(), 2u);
  format.prompts = {AnswerPrompt(&BundledTokenizer(), prompt, true, false)};
  OpenAiAnswer answer(format, &BundledTokenizer());
  PromptLogprobsEvent scores;
  scores.logprobs = {Scored(prompt[1], -1.0f)};
  answer.Add(0, {StartedEvent{2, 1}, scores, Delta("the sea"), Finished(FinishReason::kMaxTokens)});
  const Json choice = Json::parse(answer.Whole())["choices"][0];
  EXPECT_EQ(choice["text"], "the sea");
  EXPECT_EQ(choice["logprobs"]["tokens"], Json::parse(R"(["the"," sea"])"))
      << "without the space that Encode made up";
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], Json::parse("[null,-1.0]"));
  EXPECT_EQ(choice["logprobs"]["text_offset"], Json::parse("[0,3]"));
}

TEST(OpenAiResponseTest, AnEchoOfOneTokenIsThereAllTheSame) {
  AnswerFormat format = Format();
  format.logprobs = format.prompt_logprobs = true;
  format.prompts = {AnswerPrompt(&BundledTokenizer(), {TokenOf(" sea")}, true, false)};
  OpenAiAnswer answer(format, &BundledTokenizer());
  answer.Add(0, {StartedEvent{1, 1}, Delta("sea"), Finished(FinishReason::kMaxTokens)});
  EXPECT_EQ(Json::parse(answer.Whole())["choices"][0]["logprobs"]["token_logprobs"],
            Json::parse("[null]"));
}

TEST(OpenAiResponseTest, PartsOfACharacterAreNamedByTheirBytes) {
  AnswerFormat format = Format();
  format.logprobs = true;
  OpenAiAnswer answer(format, &BundledTokenizer());
  DeltaEvent delta = Delta("☃x");
  for (const int32_t token :
       BundledTokenizer().Encode("☃x", {.add_special_tokens = false, .continuation = true})) {
    delta.logprobs.push_back(Scored(token, -1.0f));
  }
  ASSERT_EQ(delta.logprobs.size(), 4u) << "the vocabulary has no snowman";
  answer.Add(0, {delta, Finished(FinishReason::kMaxTokens)});
  const Json logprobs = Json::parse(answer.Whole())["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], Json::parse(R"(["bytes:\\xe2","bytes:\\x98","bytes:\\x83","x"])"));
  EXPECT_EQ(logprobs["text_offset"], Json::parse("[0,0,0,1]"));
}

// The log-probabilities of an answer of `tokens` to `prompt`.
Json LogprobsOf(const std::vector<int32_t>& prompt, const std::vector<int32_t>& tokens,
                const std::vector<TokenAlternative>& others = {}, bool chat = false) {
  AnswerFormat format = Format();
  format.logprobs = true;
  format.chat = chat;
  format.prompts = {AnswerPrompt(&BundledTokenizer(), prompt, false, false)};
  OpenAiAnswer answer(format, &BundledTokenizer());
  DeltaEvent delta = Delta("");
  for (const int32_t token : tokens) delta.logprobs.push_back(Scored(token, -1.0f));
  delta.logprobs.front().alternatives = others;
  answer.Add(0, {delta, Finished(FinishReason::kMaxTokens)});
  return Json::parse(answer.Whole())["choices"][0]["logprobs"];
}

TEST(OpenAiResponseTest, NamesAreThoseOfTheTextThatDropsItsFirstSpace) {
  const int32_t spaced = TokenOf(" a");
  const int32_t bare = TokenOf("a");
  const Json told =
      LogprobsOf({}, {spaced, spaced}, {{bare, -0.5f}, {spaced, -1.0f}, {TokenOf(" the"), -2.0f}});
  EXPECT_EQ(told["tokens"], Json::parse(R"(["a"," a"])"));
  EXPECT_EQ(told["text_offset"], Json::parse("[0,1]"));
  EXPECT_EQ(told["top_logprobs"][0], Json::parse(R"({"a":-1.0,"the":-2.0})"))
      << "each name once, and the token's own value stays";
  EXPECT_EQ(LogprobsOf({}, {spaced}, {}, true)["content"][0]["bytes"], Json::parse("[97]"));
}

TEST(OpenAiResponseTest, OffsetsAreThoseOfATextThatBeginsInsideACharacter) {
  const std::vector<int32_t> snowman =
      BundledTokenizer().Encode("☃", {.add_special_tokens = false, .continuation = true});
  ASSERT_EQ(snowman.size(), 3u);
  const int32_t a = TokenOf("a");
  const std::vector<int32_t> prompt = {1, a, snowman[0], snowman[1]};
  const Json whole = LogprobsOf(prompt, {snowman[2], a, snowman[0]});
  EXPECT_EQ(whole["tokens"], Json::parse(R"(["bytes:\\x83","a","bytes:\\xe2"])"));
  EXPECT_EQ(whole["text_offset"], Json::parse("[0,1,2]")) << "☃a, and U+FFFD";
  const Json broken = LogprobsOf(prompt, {a, a});
  EXPECT_EQ(broken["tokens"], Json::parse(R"(["a","a"])"));
  EXPECT_EQ(broken["text_offset"], Json::parse("[2,3]")) << "two bytes that are lost, and aa";
}

TEST(OpenAiResponseTest, TellsWhatStoppedIt) {
  const auto reason = [](FinishReason why, const char* matched, int32_t token) {
    AnswerFormat format = Format();
    format.own_stop = "\nuser:";
    OpenAiAnswer answer(format, &BundledTokenizer());
    FinishedEvent finished = Finished(why);
    finished.matched_stop = matched;
    finished.stop_token = token;
    answer.Add(0, {finished});
    return Json::parse(answer.Whole())["choices"][0]["stop_reason"];
  };
  EXPECT_EQ(reason(FinishReason::kStopString, "x\"", -1), "x\"");
  EXPECT_EQ(reason(FinishReason::kStopToken, "▁x", 77), 77);
  EXPECT_TRUE(reason(FinishReason::kStopString, "\nuser:", -1).is_null()) << "nobody asked for it";
  EXPECT_TRUE(reason(FinishReason::kEos, "", -1).is_null());
}

TEST(OpenAiResponseTest, ChatLogprobsHaveBytes) {
  AnswerFormat format = Format();
  format.chat = format.logprobs = true;
  OpenAiAnswer answer(format, &BundledTokenizer());
  DeltaEvent delta = Delta(" sea");
  delta.logprobs = {Scored(TokenOf(" sea"), -1.5f)};
  delta.logprobs[0].alternatives = {{TokenOf(" the"), -0.25f}};
  answer.Add(0, {delta, Finished(FinishReason::kEos)});
  EXPECT_EQ(Json::parse(answer.Whole())["choices"][0]["logprobs"], Json::parse(R"({"refusal":null,
    "content":[{"token":" sea","logprob":-1.5,"bytes":[32,115,101,97],
      "top_logprobs":[{"token":" the","logprob":-0.25,"bytes":[32,116,104,101]}]}]})"));
}

TEST(OpenAiResponseTest, KeepsWhyASequenceFailed) {
  AnswerFormat format = Format();
  format.stream = true;
  OpenAiAnswer answer(format, &BundledTokenizer());
  FinishedEvent failed = Finished(FinishReason::kError);
  failed.status = absl::InternalError("numeric fault");
  const std::vector<Json> chunks = Chunks(answer.Add(0, {failed}));
  EXPECT_TRUE(chunks.front()["choices"][0]["finish_reason"].is_null());
  EXPECT_TRUE(absl::IsInternal(answer.failure()));
}

}  // namespace
}  // namespace sluice
