#include "client/bench/shapes.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(absl::string_view text) {
  const auto shapes = ParseShapes(text, "f.jsonl");
  return shapes.ok() ? "no error" : std::string(shapes.status().message());
}

TEST(ShapesTest, ReadsEveryForm) {
  const auto shapes = ParseShapes(
      "prompt_tokens,output_tokens\n# a comment\n\n220,85\r\n"
      "{\"prompt_tokens\": 7, \"output_tokens\": 9, \"id\": \"x\"}\n"
      "{\"prompt\": \"Once \\\"upon\\\" a time\", \"output_tokens\": 4}",
      "f");
  ASSERT_TRUE(shapes.ok()) << shapes.status();
  ASSERT_EQ(shapes->size(), 3u);
  EXPECT_EQ((*shapes)[0].prompt_tokens, 220);
  EXPECT_EQ((*shapes)[0].new_tokens, 85);
  EXPECT_EQ((*shapes)[1].prompt_tokens, 7);
  EXPECT_EQ((*shapes)[1].new_tokens, 9);
  EXPECT_EQ((*shapes)[2].prompt, "Once \"upon\" a time");
  EXPECT_EQ((*shapes)[2].new_tokens, 4);
}

TEST(ShapesTest, NamesTheBadLine) {
  EXPECT_EQ(ErrorOf("1,2\n\n3\n"),
            "f.jsonl:3: must be a JSON object or PROMPT_TOKENS,OUTPUT_TOKENS");
  EXPECT_EQ(ErrorOf("{\"prompt_tokens\": 1"), "f.jsonl:1: is not a JSON object");
  EXPECT_EQ(ErrorOf(std::string("{\"prompt_tokens\": 1, \"output_tokens\": 1}\0x", 42)),
            "f.jsonl:1: is not a JSON object");
  EXPECT_EQ(ErrorOf("{\"prompt_tokens\": 1}"), "f.jsonl:1: output_tokens is missing");
  EXPECT_EQ(ErrorOf("{\"output_tokens\": 1}"), "f.jsonl:1: prompt_tokens is missing");
  EXPECT_EQ(ErrorOf("{\"prompt\": \"\", \"output_tokens\": 1}"),
            "f.jsonl:1: prompt must be a text that is not empty");
  EXPECT_EQ(ErrorOf(""), "f.jsonl: has no request");
  EXPECT_EQ(ErrorOf("1,2\nprompt_tokens,output_tokens"),
            "f.jsonl:2: PROMPT_TOKENS must be a whole number in [1, 1048576]");
}

TEST(ShapesTest, NumbersHaveBounds) {
  for (const char* line : {"0,1", "1,0", "-1,1", "1048577,1", "1,99999999999", "1.5,1",
                           "{\"prompt_tokens\": 1e3, \"output_tokens\": 1}",
                           "{\"prompt_tokens\": -1, \"output_tokens\": 1}",
                           "{\"prompt_tokens\": 18446744073709551615, \"output_tokens\": 1}",
                           "{\"prompt_tokens\": \"1\", \"output_tokens\": 1}"}) {
    EXPECT_THAT(ErrorOf(line), HasSubstr("must be a whole number in [1, 1048576]")) << line;
  }
}

TEST(ShapesTest, TheBundledSampleIsWhatItSays) {
  const auto shapes = ReadShapes(SourcePath("tests/bench/shapes/sharegpt-like.jsonl"));
  ASSERT_TRUE(shapes.ok()) << shapes.status();
  EXPECT_EQ(shapes->size(), 500u);
  int short_prompts = 0;
  int short_outputs = 0;
  for (const RequestShape& shape : *shapes) {
    short_prompts += shape.prompt_tokens <= 80 ? 1 : 0;
    short_outputs += shape.new_tokens <= 220 ? 1 : 0;
  }
  // The medians, within 4 standard errors.
  EXPECT_NEAR(short_prompts, 250, 45);
  EXPECT_NEAR(short_outputs, 250, 45);
}

TEST(ShapesTest, NoFileIsAnError) {
  const auto shapes = ReadShapes("/nowhere/at/all");
  EXPECT_EQ(shapes.status().message(), "/nowhere/at/all: No such file or directory");
}

}  // namespace
}  // namespace sluice
