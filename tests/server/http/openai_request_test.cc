#include "server/http/openai_request.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int32_t kMaxSequences = 8;

absl::StatusOr<OpenAiRequest> Complete(const std::string& body) {
  return ParseCompletion(body, kMaxSequences);
}

// Parses a body that must be right and has one prompt.
v1::GenerateRequest One(const std::string& body) {
  absl::StatusOr<OpenAiRequest> parsed = Complete(body);
  EXPECT_TRUE(parsed.ok()) << body << ": " << parsed.status();
  if (!parsed.ok()) return {};
  EXPECT_EQ(parsed->prompts.size(), 1u);
  return parsed->prompts.front();
}

// `fields` beside a prompt.
v1::GenerateRequest With(const std::string& fields) {
  return One(absl::StrCat(R"({"prompt":"a",)", fields, "}"));
}

std::string ErrorOf(const std::string& body) {
  const absl::Status status = Complete(body).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << body << ": " << status;
  return std::string(status.message());
}

std::string ErrorWith(const std::string& fields) {
  return ErrorOf(absl::StrCat(R"({"prompt":"a",)", fields, "}"));
}

absl::StatusOr<OpenAiRequest> Chat(const std::string& body) {
  return ParseChatCompletion(body, *ChatTemplate::Parse("{role}: {content}\\n"), 4);
}

std::string ChatErrorOf(const std::string& body) {
  const absl::Status status = Chat(body).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << body << ": " << status;
  return std::string(status.message());
}

TEST(OpenAiRequestTest, DefaultsAreThoseOfOpenAi) {
  const v1::GenerateRequest request = One(R"({"prompt":"a"})");
  EXPECT_EQ(request.text(), "a");
  EXPECT_EQ(request.sampling().temperature(), 1.0f);
  EXPECT_FALSE(request.sampling().has_top_p());
  EXPECT_FALSE(request.sampling().has_seed());
  EXPECT_EQ(request.stop().max_new_tokens(), 16);
  EXPECT_FALSE(request.output().has_logprobs());
  EXPECT_FALSE(request.has_n());
}

TEST(OpenAiRequestTest, TakesEveryField) {
  const v1::GenerateRequest request = With(
      R"("model":"m","max_tokens":7,"temperature":0.5,"top_p":0.9,"n":2,"seed":12,"stop":["x","y"],
         "presence_penalty":0.25,"frequency_penalty":-0.5,"logit_bias":{"5":-100,"6":1.5},
         "top_k":40,"min_p":0.125,"typical_p":0.75,"repetition_penalty":1.25,"min_tokens":2,
         "ignore_eos":true,"stop_token_ids":[3,4],"include_stop_str_in_output":true,"priority":-3,
         "logprobs":3,"best_of":2,"user":"u","unknown":{"a":[1]})");
  EXPECT_EQ(request.model(), "m");
  EXPECT_EQ(request.n(), 2);
  EXPECT_EQ(request.priority(), -3);
  EXPECT_EQ(request.output().logprobs(), 3);
  EXPECT_FALSE(request.output().prompt_logprobs()) << "without echo";
  const v1::SamplingParams& sampling = request.sampling();
  EXPECT_EQ(sampling.temperature(), 0.5f);
  EXPECT_EQ(sampling.top_p(), 0.9f);
  EXPECT_EQ(sampling.top_k(), 40);
  EXPECT_EQ(sampling.min_p(), 0.125f);
  EXPECT_EQ(sampling.typical_p(), 0.75f);
  EXPECT_EQ(sampling.repetition_penalty(), 1.25f);
  EXPECT_EQ(sampling.presence_penalty(), 0.25f);
  EXPECT_EQ(sampling.frequency_penalty(), -0.5f);
  EXPECT_EQ(sampling.seed(), 12u);
  EXPECT_EQ(sampling.logit_bias().at(5), -100.0f);
  EXPECT_EQ(sampling.logit_bias().at(6), 1.5f);
  const v1::StopConditions& stop = request.stop();
  EXPECT_EQ(stop.max_new_tokens(), 7);
  EXPECT_EQ(stop.min_new_tokens(), 2);
  EXPECT_TRUE(stop.ignore_eos());
  EXPECT_TRUE(stop.include_stop());
  EXPECT_THAT(stop.strings(), ElementsAre("x", "y"));
  EXPECT_THAT(stop.token_ids(), ElementsAre(3, 4));
}

TEST(OpenAiRequestTest, NullIsAbsent) {
  const v1::GenerateRequest request = With(
      R"("max_tokens":null,"temperature":null,"stop":null,"logprobs":null,"seed":null,"n":null,
         "suffix":null,"best_of":null,"logit_bias":null,"stream":null,"echo":null,"top_k":null)");
  EXPECT_EQ(request.SerializeAsString(), One(R"({"prompt":"a"})").SerializeAsString());
}

TEST(OpenAiRequestTest, ReadsPromptsOfEachKind) {
  EXPECT_THAT(One(R"({"prompt":[5,6]})").tokens().ids(), ElementsAre(5, 6));
  EXPECT_EQ(One(R"({"prompt":["b"]})").text(), "b");
  EXPECT_THAT(One(R"({"prompt":[[7]]})").tokens().ids(), ElementsAre(7));
  const absl::StatusOr<OpenAiRequest> two = Complete(R"({"prompt":["b",[8,9]],"seed":1})");
  ASSERT_TRUE(two.ok()) << two.status();
  ASSERT_EQ(two->prompts.size(), 2u);
  EXPECT_EQ(two->prompts[0].text(), "b");
  EXPECT_THAT(two->prompts[1].tokens().ids(), ElementsAre(8, 9));
  EXPECT_EQ(two->prompts[1].sampling().seed(), 1u);
}

TEST(OpenAiRequestTest, RefusesOtherPrompts) {
  for (const char* prompt :
       {"1", "{}", "[]", "[[]]", "[1,\"a\"]", "[[1],2]", "[null]", "true", "[[[1]]]"}) {
    EXPECT_THAT(ErrorOf(absl::StrCat(R"({"prompt":)", prompt, "}")), HasSubstr("prompt must be"))
        << prompt;
  }
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("prompt is required"));
  EXPECT_THAT(ErrorOf(R"({"prompt":["a","a","a"],"n":3})"), HasSubstr("more than 8 sequences"));
}

TEST(OpenAiRequestTest, SeedsAreOf64Bits) {
  EXPECT_EQ(With(R"("seed":18446744073709551615)").sampling().seed(), UINT64_MAX);
  EXPECT_FALSE(With(R"("seed":-1)").sampling().has_seed()) << "others say so that there is none";
  EXPECT_EQ(With(R"("seed":-2)").sampling().seed(), UINT64_MAX - 1);
  EXPECT_THAT(ErrorWith(R"("seed":1.5)"), HasSubstr("seed is 1.5, must be"));
  EXPECT_THAT(ErrorWith(R"("seed":18446744073709551616)"),
              HasSubstr("seed is 1.8446744073709552e+19"));
  EXPECT_THAT(ErrorWith(R"("seed":"x")"), HasSubstr("seed must be"));
}

TEST(OpenAiRequestTest, ScoresWithEchoAndLogprobs) {
  const v1::OutputOptions output = With(R"("echo":true,"logprobs":0,"max_tokens":0)").output();
  EXPECT_TRUE(output.echo());
  EXPECT_TRUE(output.prompt_logprobs());
  EXPECT_THAT(ErrorWith(R"("echo":true,"logprobs":1,"n":2)"), HasSubstr("n must be 1"));
}

TEST(OpenAiRequestTest, RefusesByNameWhatItCannotHonour) {
  const std::pair<const char*, const char*> refused[] = {
      {R"("suffix":"x")", "suffix is not supported"},
      {R"("tools":[{}])", "tools is not supported"},
      {R"("functions":[{}])", "functions is not supported"},
      {R"("tool_choice":"auto")", "tool_choice is not supported"},
      {R"("best_of":2)", "best_of is supported only when it equals n"},
      {R"("response_format":{"type":"json_object"})",
       R"(response_format is supported only as {"type":"text"})"},
      {R"("response_format":"x")", R"(response_format is supported only as {"type":"text"})"},
      {R"("modalities":["audio"])", R"(modalities is supported only as ["text"])"},
      {R"("stream":true,"stream_options":{"continuous_usage_stats":true})",
       "stream_options.continuous_usage_stats is not supported"},
      {R"("use_beam_search":true)", "use_beam_search is not supported"},
      {R"("guided_json":{"a":1})", "guided_json is not supported"},
  };
  for (const auto& [field, error] : refused) EXPECT_THAT(ErrorWith(field), HasSubstr(error));
  With(R"("tools":[],"tool_choice":"none","suffix":"","response_format":{"type":"text"})");
}

TEST(OpenAiRequestTest, RefusesWrongTypes) {
  for (const char* field :
       {R"("temperature":"1")", R"("temperature":1e39)", R"("max_tokens":1.0)", R"("n":"2")",
        R"("max_tokens":2147483648)", R"("max_tokens":18446744073709551615)", R"("stream":1)",
        R"("stop":1)", R"("stop":["a",1])", R"("logit_bias":[1])", R"("logit_bias":{"a":1})",
        R"("logit_bias":{"1":"x"})", R"("logprobs":true)", R"("model":1)", R"("echo":"yes")",
        R"("stop_token_ids":3)", R"("stream_options":{})", R"("stream":true,"stream_options":3)"}) {
    EXPECT_THAT(ErrorWith(field), HasSubstr("must be")) << field;
  }
}

TEST(OpenAiRequestTest, RefusesWhatIsNoJson) {
  EXPECT_THAT(ErrorOf(std::string("{\"prompt\":\"a\"}\0x", 16)), HasSubstr("at byte 15"));
  for (const char* body : {"", "{", "{\"prompt\":\"a\"} x", "{\"prompt\":\"\xff\"}", "{'a':1}",
                           "{\"prompt\":\"\\ud800\"}", "{\"prompt\":\"a\",\"top_p\":NaN}"}) {
    EXPECT_THAT(ErrorOf(body), HasSubstr("not valid JSON")) << body;
  }
  for (const char* body : {"[]", "1", "null", "\"a\""}) {
    EXPECT_THAT(ErrorOf(body), HasSubstr("must be a JSON object")) << body;
  }
  EXPECT_THAT(ErrorOf(std::string(100000, '[')), HasSubstr("nested more than 32 deep"));
  With(R"("unknown":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"[")");
}

TEST(OpenAiRequestTest, StreamsOnRequest) {
  const absl::StatusOr<OpenAiRequest> parsed =
      Complete(R"({"prompt":"a","stream":true,"stream_options":{"include_usage":true}})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->stream);
  EXPECT_TRUE(parsed->include_usage);
  EXPECT_FALSE(Complete(R"({"prompt":"a","stream":true})")->include_usage);
}

TEST(OpenAiChatTest, WritesTheTemplateAndItsStop) {
  const absl::StatusOr<OpenAiRequest> parsed = Chat(
      R"({"messages":[{"role":"system","content":"s"},
                      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],
          "stop":"x","max_completion_tokens":9,"logprobs":true,"top_logprobs":2})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const v1::GenerateRequest& request = parsed->prompts.front();
  EXPECT_TRUE(parsed->chat);
  EXPECT_EQ(request.text(), "system: s\nuser: ab\nassistant:");
  EXPECT_THAT(request.stop().strings(), ElementsAre("x", "\nuser:"));
  EXPECT_EQ(request.stop().max_new_tokens(), 9);
  EXPECT_EQ(request.output().logprobs(), 2);
}

TEST(OpenAiChatTest, LeavesTheBoundOfStopsToTheCaller) {
  const absl::StatusOr<OpenAiRequest> parsed =
      Chat(R"({"messages":[{"role":"user","content":"a"}],"stop":["1","2","3","4"]})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(parsed->prompts.front().stop().strings(), ElementsAre("1", "2", "3", "4", "\nuser:"));
  EXPECT_EQ(parsed->own_stop, "\nuser:");
  EXPECT_THAT(ChatErrorOf(R"({"messages":[{"role":"user","content":"a"}],
                             "stop":["1","2","3","4","5"]})"),
              HasSubstr("stop has 5 entries, at most 4 are allowed"));
  const absl::StatusOr<OpenAiRequest> same =
      Chat(R"({"messages":[{"role":"user","content":"a"}],"stop":["\nuser:"]})");
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_THAT(same->prompts.front().stop().strings(), ElementsAre("\nuser:"));
  EXPECT_EQ(same->own_stop, "") << "the caller's";
}

TEST(OpenAiRequestTest, KnowsItsFields) {
  const absl::StatusOr<OpenAiRequest> parsed =
      Complete(R"({"prompt":"a","user":"u","xyz":1,"messages":[],"abc":null,"top_k":3})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT(parsed->unknown_fields, ElementsAre("messages", "xyz"));
}

TEST(OpenAiRequestTest, HoldsEveryBoundOfTokens) {
  EXPECT_EQ(With(R"("max_new_tokens":3)").stop().max_new_tokens(), 3);
  EXPECT_EQ(
      With(R"("max_tokens":9,"n_predict":5,"max_completion_tokens":7)").stop().max_new_tokens(), 5);
  EXPECT_THAT(ErrorWith(R"("n_predict":-1)"), HasSubstr("n_predict is -1, must be at least 0"));
}

TEST(OpenAiRequestTest, NamesNumbersOutOfRange) {
  EXPECT_THAT(ErrorWith(R"("top_p":1e999)"), HasSubstr("top_p has the number 1e999"));
  EXPECT_THAT(ErrorWith(R"("logit_bias":{"5":1e39})"), HasSubstr("logit_bias[5] is 1e+39"));
  EXPECT_THAT(ErrorOf(R"({"prompt":[[1],[2,4294967296]]})"),
              HasSubstr("prompt[1][1] is 4294967296, must be a token id"));
}

TEST(OpenAiChatTest, RefusesByName) {
  EXPECT_THAT(ChatErrorOf("{}"), HasSubstr("messages must be"));
  EXPECT_THAT(ChatErrorOf(R"({"messages":[]})"), HasSubstr("messages must be"));
  EXPECT_THAT(ChatErrorOf(R"({"messages":[1]})"), HasSubstr("messages[0].role"));
  EXPECT_THAT(ChatErrorOf(R"({"messages":[{"role":"critic","content":"a"}]})"),
              HasSubstr("messages[0].role"));
  EXPECT_THAT(ChatErrorOf(R"({"messages":[{"role":"user"}]})"), HasSubstr("messages[0].content"));
  EXPECT_THAT(ChatErrorOf(R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})"),
              HasSubstr("messages[0].content"));
  const std::string messages = R"("messages":[{"role":"user","content":"a"}])";
  EXPECT_THAT(ChatErrorOf("{" + messages + R"(,"tools":[{"type":"function"}]})"),
              HasSubstr("tools is not supported"));
  EXPECT_THAT(ChatErrorOf("{" + messages + R"(,"top_logprobs":1})"),
              HasSubstr("top_logprobs needs logprobs"));
}

}  // namespace
}  // namespace sluice
