#include <cstdio>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cli/cli_test.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::UnorderedElementsAre;

class ChatTest : public CliTest {
 protected:
  int Chat(const std::string& lines, const std::vector<std::string>& args = {"story"}) {
    in_ = lines;
    std::vector<std::string> all = {"chat"};
    all.insert(all.end(), args.begin(), args.end());
    return Run(all);
  }
};

TEST_F(ChatTest, EachLineContinuesTheSession) {
  EXPECT_EQ(Chat("Once upon a time\n\n"), 0);
  EXPECT_EQ(out_, "Hello there\nHello there\n");
  EXPECT_THAT(err_, IsEmpty());
  EXPECT_EQ(server_.generate_request.prompt_case(), v1::GenerateRequest::PROMPT_NOT_SET);
  EXPECT_EQ(server_.generate_request.session_id(), "story");
  // The session that /undo would need is gone with the chat.
  EXPECT_THAT(server_.sessions.all(), ElementsAre(Key("story")));
  EXPECT_EQ(server_.sessions.all()["story"].position(), 20);
}

TEST_F(ChatTest, LinesJoinTheStoryWithASpace) {
  EXPECT_EQ(Chat("The wind\n"), 0);
  EXPECT_EQ(server_.generate_request.text(), "The wind");
  EXPECT_EQ(Chat("blew\n"), 0);
  EXPECT_EQ(server_.generate_request.text(), " blew");
  EXPECT_EQ(Chat(", then\n"), 0);
  EXPECT_EQ(server_.generate_request.text(), ", then");
  EXPECT_EQ(Chat("//path\n"), 0);
  EXPECT_EQ(server_.generate_request.text(), "/path");
  server_.generate_events[2] = DeltaEvent(0, " there\n", {2, 3});
  EXPECT_EQ(Chat("a\nb\n"), 0);
  EXPECT_EQ(server_.generate_request.text(), "b");
}

TEST_F(ChatTest, FlagsGoIntoEveryTurn) {
  EXPECT_EQ(Chat("a\n", {"--temperature=0", "--max-new-tokens=7", "--durable"}), 0);
  EXPECT_EQ(server_.generate_request.stop().max_new_tokens(), 7);
  EXPECT_TRUE(server_.generate_request.sampling().has_temperature());
  EXPECT_TRUE(server_.generate_request.durable());
  EXPECT_FALSE(server_.generate_request.etag().empty());
  // A story without a name says how to come back.
  EXPECT_THAT(err_, HasSubstr(" goes on with this story)\n"));
}

TEST_F(ChatTest, UndoTakesTurnsBackUnderTheSameName) {
  (*server_.sessions.Add("story").mutable_labels())["mood"] = "dark";
  EXPECT_EQ(Chat("a\nb\nc\n/undo\n/undo\n"), 0);
  EXPECT_EQ(err_, "(back at 20 tokens)\n(back at 10 tokens)\n");
  EXPECT_THAT(server_.sessions.all(), ElementsAre(Key("story")));
  EXPECT_EQ(server_.sessions.all()["story"].position(), 10);
  EXPECT_EQ(server_.sessions.all()["story"].labels().at("mood"), "dark");
  EXPECT_EQ(Chat("/undo\n"), 1);
  EXPECT_THAT(err_, HasSubstr("there is no turn to undo"));
}

TEST_F(ChatTest, AnUndoThatFailsSaysWhereTheStoryIs) {
  server_.sessions.fork_refused = "story";
  server_.sessions.Add("story");
  EXPECT_EQ(Chat("a\n/undo\n"), 1);
  EXPECT_THAT(err_, HasSubstr("the earlier story is session "));
}

TEST_F(ChatTest, ForksStay) {
  EXPECT_EQ(Chat("a\n/fork other\nb\n/show\n/open other\n/show\n"), 0);
  EXPECT_EQ(err_,
            "(kept as other; /open other goes on there)\n"
            "(story story, 20 tokens, 2 turns to undo)\n"
            "(story other, 10 tokens, 0 turns to undo)\n"
            "(sluice chat other goes on with this story)\n");
  EXPECT_THAT(server_.sessions.all(), UnorderedElementsAre(Key("story"), Key("other")));
}

TEST_F(ChatTest, SaveAndLoad) {
  const std::string file = ::testing::TempDir() + "/chat_test.state";
  EXPECT_EQ(Chat("a\n/save " + file + "\n/load " + file + "\n"), 0);
  EXPECT_THAT(err_, HasSubstr("(6 bytes in " + file + ")\n"));
  EXPECT_EQ(server_.sessions.imported, "SLUICE");
  EXPECT_EQ(server_.sessions.all().size(), 2u);
  std::remove(file.c_str());
  EXPECT_EQ(Chat("/load " + file + "\n"), 1);
  EXPECT_THAT(err_, HasSubstr("No such file"));
}

TEST_F(ChatTest, AScriptEndsAtItsFirstError) {
  EXPECT_EQ(Chat("/dance\na\n"), 1);
  EXPECT_EQ(err_, "sluice: unknown command /dance; /help lists them (INVALID_ARGUMENT)\n");
  EXPECT_THAT(out_, IsEmpty());
  EXPECT_EQ(Chat("\n"), 1);
  EXPECT_THAT(err_, HasSubstr("the story is empty"));
  EXPECT_EQ(Chat("\xff\n"), 1);
}

TEST_F(ChatTest, APersonIsToldAndGoesOn) {
  in_is_terminal_ = true;
  EXPECT_EQ(Chat("/dance\n/save\n/help\na\n/quit\nb\n"), 0);
  EXPECT_THAT(err_, HasSubstr("(story story, 0 tokens; /help says what you can do)\n"));
  EXPECT_THAT(err_, HasSubstr("(unknown command /dance; /help lists them)\n"));
  EXPECT_THAT(err_, HasSubstr("(/save needs a file)\n"));
  EXPECT_THAT(err_, HasSubstr("/undo        takes the last turn back"));
  EXPECT_EQ(out_, "> > > > Hello there\n> ");
}

TEST_F(ChatTest, AFailedTurnLeavesNothingBehind) {
  server_.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  EXPECT_EQ(Chat("a\n"), 1);
  EXPECT_THAT(err_, HasSubstr("full (RESOURCE_EXHAUSTED)"));
  EXPECT_THAT(server_.sessions.all(), ElementsAre(Key("story")));
}

TEST_F(ChatTest, OneStoryAtATime) { EXPECT_EQ(Chat("", {"a", "b"}), 2); }

}  // namespace
}  // namespace sluice
