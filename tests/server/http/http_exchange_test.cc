#include "server/http/http_exchange.h"

#include <atomic>
#include <thread>

#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class HttpExchangeTest : public testing::Test {
 protected:
  ~HttpExchangeTest() override { exchange_->Complete(false); }

  HttpExchange::Done Noted(const char* name) {
    return [this, name](bool ok) { notes_.push_back(std::string(name) + (ok ? "+" : "-")); };
  }
  std::string Taken() { return absl::StrJoin(exchange_->Take().pieces, "|"); }

  std::atomic<int> wakes_{0};
  std::shared_ptr<HttpExchange> exchange_ =
      std::make_shared<HttpExchange>(HttpHead(), "ipv4:127.0.0.1", [this] { ++wakes_; });
  std::vector<std::string> notes_;
};

TEST_F(HttpExchangeTest, WakesForItsAnswer) {
  EXPECT_FALSE(exchange_->answered());
  exchange_->AddHeader("x-a", "b");
  HttpReply reply;
  reply.body = "b";
  exchange_->Reply(reply);
  EXPECT_TRUE(exchange_->answered());
  EXPECT_EQ(wakes_, 1);
  const HttpExchange::Output output = exchange_->Take();
  ASSERT_TRUE(output.head.has_value());
  EXPECT_EQ(output.head->body, "b");
  EXPECT_THAT(output.head->headers, ElementsAre(std::make_pair("x-a", "b")));
  EXPECT_TRUE(output.ended);
  EXPECT_FALSE(output.stream);
}

TEST_F(HttpExchangeTest, WakesOnceForAllThatIsTakenTogether) {
  exchange_->Start(HttpReply());
  exchange_->Send("a", nullptr);
  exchange_->Send("b", nullptr);
  EXPECT_EQ(wakes_, 1);
  EXPECT_EQ(Taken(), "a|b");
  exchange_->Send("c", nullptr);
  EXPECT_EQ(wakes_, 2);
}

TEST_F(HttpExchangeTest, APieceIsDoneWhenTheSocketHasIt) {
  exchange_->Start(HttpReply());
  exchange_->Send("a", Noted("1"));
  EXPECT_EQ(Taken(), "a");
  exchange_->Send("b", Noted("2"));
  EXPECT_THAT(notes_, IsEmpty());
  exchange_->Written();
  EXPECT_THAT(notes_, ElementsAre("1+")) << "the second was not taken yet";
  EXPECT_EQ(Taken(), "b");
  exchange_->Written();
  EXPECT_THAT(notes_, ElementsAre("1+", "2+"));
}

TEST_F(HttpExchangeTest, EndsAfterItsLastPiece) {
  exchange_->Start(HttpReply());
  EXPECT_FALSE(exchange_->Take().ended);
  exchange_->Send("a", nullptr);
  exchange_->End();
  const HttpExchange::Output output = exchange_->Take();
  EXPECT_THAT(output.pieces, ElementsAre("a"));
  EXPECT_TRUE(output.ended);
  EXPECT_TRUE(output.stream);
  EXPECT_FALSE(output.head.has_value()) << "taken before";
}

TEST_F(HttpExchangeTest, ACutTellsEveryPieceOnItsWay) {
  exchange_->Start(HttpReply());
  exchange_->set_on_gone([this] { notes_.push_back("gone"); });
  exchange_->Send("a", Noted("1"));
  exchange_->Take();
  exchange_->Send("b", Noted("2"));
  exchange_->Take();
  exchange_->Send("c", Noted("3"));
  const int before = wakes_;
  exchange_->Cut();
  EXPECT_GT(wakes_, before);
  EXPECT_TRUE(exchange_->gone());
  EXPECT_THAT(notes_, ElementsAre("1-", "2-", "3-", "gone"));
  exchange_->Cut();
  exchange_->Send("d", Noted("4"));
  EXPECT_THAT(notes_, ElementsAre("1-", "2-", "3-", "gone", "4-"));
  EXPECT_EQ(Taken(), "");
}

TEST_F(HttpExchangeTest, AnEndOfTheConnectionIsACut) {
  exchange_->Start(HttpReply());
  exchange_->set_on_gone([this] { notes_.push_back("gone"); });
  exchange_->Send("a", Noted("1"));
  exchange_->Complete(false);
  EXPECT_THAT(notes_, ElementsAre("1-", "gone"));
}

TEST_F(HttpExchangeTest, WhoAsksLateIsToldAtOnce) {
  exchange_->Complete(false);
  exchange_->set_on_gone([this] { notes_.push_back("gone"); });
  EXPECT_THAT(notes_, ElementsAre("gone"));
  exchange_->Reply(HttpReply());  // of a call that was under way
  EXPECT_EQ(wakes_, 0);
}

TEST_F(HttpExchangeTest, AGoodEndIsNoCut) {
  exchange_->set_on_gone([this] { notes_.push_back("gone"); });
  exchange_->Reply(HttpReply());
  exchange_->Take();
  exchange_->Written();
  exchange_->Complete(true);
  exchange_->Cut();
  EXPECT_THAT(notes_, IsEmpty());
}

TEST_F(HttpExchangeTest, PlannedEventsBeginOnceOrGiveWayToAnAnswer) {
  const absl::Duration at = absl::Seconds(10);
  EXPECT_FALSE(exchange_->is_events());
  HttpReply head;
  head.content_type = "text/event-stream";
  exchange_->PlanEvents(head, at);
  EXPECT_TRUE(exchange_->is_events());
  EXPECT_FALSE(exchange_->answered());
  EXPECT_FALSE(exchange_->BeginIfPlannedBy(at - absl::Milliseconds(1))) << "it waits not long yet";
  EXPECT_TRUE(exchange_->BeginIfPlannedBy(at));
  EXPECT_FALSE(exchange_->BeginIfPlannedBy(at)) << "once";
  EXPECT_FALSE(exchange_->ReplyInstead(HttpReply())) << "the head is on its way";
  exchange_->BeginEvents();
  const HttpExchange::Output output = exchange_->Take();
  ASSERT_TRUE(output.head.has_value());
  EXPECT_EQ(output.head->content_type, "text/event-stream");
  EXPECT_TRUE(output.stream);
  EXPECT_FALSE(output.ended);

  const auto refused =
      std::make_shared<HttpExchange>(HttpHead(), "ipv4:127.0.0.1", [this] { ++wakes_; });
  refused->PlanEvents(head, at);
  HttpReply error;
  error.status = 429;
  EXPECT_TRUE(refused->ReplyInstead(error));
  EXPECT_FALSE(refused->is_events());
  EXPECT_FALSE(refused->BeginIfPlannedBy(at));
  EXPECT_EQ(refused->Take().head->status, 429);
  refused->Complete(true);
}

// Two threads, as the emitter and the server are: one write in flight, everything in order.
TEST_F(HttpExchangeTest, PassesPiecesBetweenThreads) {
  exchange_->Start(HttpReply());
  constexpr int kPieces = 20000;
  std::atomic<int> done{0};
  std::string sent;
  for (int i = 0; i < kPieces; ++i) sent += std::to_string(i) + ",";
  std::thread writer([&] {
    for (int i = 0; i < kPieces; ++i) {
      exchange_->Send(std::to_string(i) + ",", [&](bool ok) { done += ok ? 1 : 0; });
      while (done <= i) std::this_thread::yield();
    }
    exchange_->End();
  });
  std::string got;
  bool ended = false;
  for (int seen = 0; !ended;) {
    while (wakes_ == seen) std::this_thread::yield();
    seen = wakes_;
    const HttpExchange::Output output = exchange_->Take();
    for (const std::string& piece : output.pieces) got += piece;
    ended = output.ended;
    exchange_->Written();
  }
  writer.join();
  EXPECT_EQ(got, sent);
  EXPECT_EQ(done, kPieces);
  exchange_->Complete(true);
}

}  // namespace
}  // namespace sluice
