#include "server/http/chat_history.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "server/http/http_error.h"

namespace sluice {
namespace {

using Messages = std::vector<ChatMessage>;

class ChatHistoryTest : public testing::Test {
 protected:
  absl::StatusOr<ChatTurn> Plan(const Messages& messages, int64_t position = 7) {
    return PlanTurn(template_, messages, position, note_);
  }
  // Has the turn's answer become a part of the history.
  void Commit(const absl::StatusOr<ChatTurn>& turn, const HistoryEnd& end) {
    ASSERT_TRUE(turn.ok()) << turn.status();
    note_ = turn->note(end);
  }
  static std::string CodeOf(const absl::StatusOr<ChatTurn>& turn) {
    const HttpError error = ToHttpError(turn.status(), true);
    EXPECT_EQ(error.status, 409);
    return error.code;
  }

  const ChatTemplate template_ = *ChatTemplate::Parse(R"({role}: {content}\n)");
  std::string note_;
};

const ChatMessage kHi = {"user", "Hi"};
const ChatMessage kHello = {"assistant", "Hello"};
const ChatMessage kMore = {"user", "More"};

TEST_F(ChatHistoryTest, TheFirstTurnIsRenderedWhole) {
  const auto turn = Plan({{"system", "Be kind"}, kHi}, 0);
  ASSERT_TRUE(turn.ok()) << turn.status();
  EXPECT_EQ(turn->text, "system: Be kind\nuser: Hi\nassistant:");
  EXPECT_EQ(turn->messages, 3u);
  EXPECT_FALSE(turn->resent);
}

TEST_F(ChatHistoryTest, NewMessagesComeBehindTheAnswer) {
  Commit(Plan({kHi}, 0), {" Hello"});
  const auto turn = Plan({kMore});
  ASSERT_TRUE(turn.ok()) << turn.status();
  EXPECT_EQ(turn->text, "\nuser: More\nassistant:");
  EXPECT_EQ(turn->messages, 4u);
}

TEST_F(ChatHistoryTest, WhatTheStateHasReadBehindTheAnswerIsNotReadAgain) {
  Commit(Plan({kHi}, 0), {" Hello", "\nuser:"});
  EXPECT_EQ(Plan({kMore})->text, " More\nassistant:");
  // Also where one token held the stop string and more.
  Commit(Plan({kHi}, 0), {" Hello", "\nuser: M"});
  EXPECT_EQ(Plan({kMore})->text, "ore\nassistant:");
  EXPECT_EQ(CodeOf(Plan({kHi})), "history_needed");
  EXPECT_EQ(CodeOf(Plan({{"system", "Stop"}})), "history_needed");
}

TEST_F(ChatHistoryTest, AControlTokenStaysBetweenMessages) {
  Commit(Plan({kHi}, 0), {" Hello", "", "</s>"});
  EXPECT_EQ(Plan({kMore})->text, "\nuser: More\nassistant:");
  const ChatTemplate other = *ChatTemplate::Parse(R"({role}: {content}</s>\n)");
  EXPECT_EQ(PlanTurn(other, {kMore}, 7, note_)->text, "\nuser: More</s>\nassistant:");
}

TEST_F(ChatHistoryTest, AResentConversationIsCutToWhatIsNew) {
  Commit(Plan({kHi}, 0), {" Hello\n", "\nuser:"});
  auto turn = Plan({kHi, kHello, kMore});
  ASSERT_TRUE(turn.ok()) << turn.status();
  EXPECT_EQ(turn->text, " More\nassistant:");
  EXPECT_TRUE(turn->resent);
  EXPECT_FALSE(turn->from_start);
  EXPECT_EQ(turn->messages, 4u);
  Commit(turn, {" Yes"});
  // The two ways can follow each other.
  turn = Plan({{"user", "A"}});
  ASSERT_TRUE(turn.ok()) << turn.status();
  Commit(turn, {" B"});
  turn = Plan({kHi, kHello, kMore, {"assistant", "Yes"}, {"user", "A"}, {"assistant", "B"}, kMore});
  ASSERT_TRUE(turn.ok()) << turn.status();
  EXPECT_EQ(turn->text, "\nuser: More\nassistant:");
}

TEST_F(ChatHistoryTest, AnotherConversationIsRefused) {
  Commit(Plan({kHi}, 0), {" Hello", "\nuser:"});
  for (const Messages& other : std::vector<Messages>{{kHi, {"assistant", "Hell"}, kMore},
                                                     {{"user", "Ho"}, kHello, kMore},
                                                     {{"system", "Hi"}, kHello, kMore},
                                                     {kHello},
                                                     {kHi, kMore, kHello},
                                                     {{"user", "HiHello"}, {"assistant", ""}}}) {
    EXPECT_EQ(CodeOf(Plan(other)), "history_mismatch");
  }
  EXPECT_EQ(ToHttpError(Plan({kHi, kHello}).status(), true).param, "messages");
  note_.clear();
  EXPECT_EQ(CodeOf(Plan({kHi, kHello, kMore})), "history_unknown");
  const auto turn = Plan({kMore});
  ASSERT_TRUE(turn.ok());
  EXPECT_EQ(turn->text, "user: More\nassistant:");
  EXPECT_EQ(turn->note, nullptr);
}

TEST_F(ChatHistoryTest, WhatTheTemplateCannotGoOnFromIsComputedFromTheStart) {
  Commit(Plan({kHi}, 0), {" Hello", "END"});
  const auto turn = Plan({kHi, kHello, kMore});
  ASSERT_TRUE(turn.ok()) << turn.status();
  EXPECT_TRUE(turn->from_start);
  EXPECT_EQ(turn->text, "user: Hi\nassistant: Hello\nuser: More\nassistant:");
}

TEST_F(ChatHistoryTest, ANoteIsAnyBytes) {
  Commit(Plan({kHi}, 0), {" Hello", "\nuser:"});
  const std::string whole = note_;
  for (size_t size = 0; size < whole.size(); ++size) {
    note_ = whole.substr(0, size);
    EXPECT_FALSE(Plan({kHi, {"assistant", "x"}, kMore}).ok());
  }
  note_ = "chat1:" + std::string(100, '\xff');
  EXPECT_EQ(CodeOf(Plan({kHi, kHello, kMore})), "history_unknown");
}

}  // namespace
}  // namespace sluice
