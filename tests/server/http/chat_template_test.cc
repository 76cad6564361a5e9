#include "server/http/chat_template.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

ChatTemplate Parsed(const char* text) {
  absl::StatusOr<ChatTemplate> parsed = ChatTemplate::Parse(text);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return *parsed;
}

std::string ErrorOf(const char* text) {
  return std::string(ChatTemplate::Parse(text).status().message());
}

const std::vector<ChatMessage> kChat = {{"system", "Be brief."}, {"user", "Who?"}};

TEST(ChatTemplateTest, WritesRolesAndContents) {
  const ChatTemplate plain = Parsed("{role}: {content}\\n");
  EXPECT_EQ(plain.Render(kChat), "system: Be brief.\nuser: Who?\nassistant:");
  EXPECT_EQ(plain.Stop(), "\nuser:");
}

TEST(ChatTemplateTest, WritesMarkup) {
  const ChatTemplate marked = Parsed("<|im_start|>{role}\\n{content}<|im_end|>\\n");
  EXPECT_EQ(marked.Render({{"user", "Who?"}}),
            "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(marked.Stop(), "<|im_end|>\n<|im_start|>user\n");
}

TEST(ChatTemplateTest, NeedsNoRole) {
  const ChatTemplate bare = Parsed("{content}");
  EXPECT_EQ(bare.Render(kChat), "Be brief.Who?");
  EXPECT_EQ(bare.Stop(), "") << "nothing tells messages apart";
}

TEST(ChatTemplateTest, ContentIsNeverATemplate) {
  EXPECT_EQ(Parsed("{role}|{content};").Render({{"user", "{role}{content}"}}),
            "user|{role}{content};assistant|");
}

TEST(ChatTemplateTest, KnowsEscapes) {
  EXPECT_EQ(Parsed("\\\\n\\t{content}").Render({{"user", "x"}}), "\\n\tx\\n\t");
}

TEST(ChatTemplateTest, SaysWhatIsWrong) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("{content} once"));
  EXPECT_THAT(ErrorOf("{role}"), HasSubstr("{content} once"));
  EXPECT_THAT(ErrorOf("{content}{content}"), HasSubstr("{content} once"));
  EXPECT_THAT(ErrorOf("{content}{role}"), HasSubstr("{role} once, before"));
  EXPECT_THAT(ErrorOf("{role}{role}{content}"), HasSubstr("{role} once, before"));
  EXPECT_THAT(ErrorOf("{content}\\"), HasSubstr("\\n, \\t or \\\\"));
  EXPECT_THAT(ErrorOf("{content}\\x"), HasSubstr("\\n, \\t or \\\\"));
  EXPECT_THAT(ErrorOf(("{content}" + std::string(300, '-')).c_str()), HasSubstr("256 bytes"));
}

}  // namespace
}  // namespace sluice
