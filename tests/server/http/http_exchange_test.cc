#include "server/http/http_exchange.h"

#include <microhttpd.h>

#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/check.h"
#include "server/core/steady_clock.h"

namespace sluice {
namespace {

// What the exchange asked of libmicrohttpd, whose functions of these names are the ones below. It
// panics where a connection is resumed or suspended twice.
std::atomic<int> suspended{0};

}  // namespace
}  // namespace sluice

extern "C" void MHD_suspend_connection(MHD_Connection*) { SLUICE_CHECK(sluice::suspended++ == 0); }
extern "C" void MHD_resume_connection(MHD_Connection*) { SLUICE_CHECK(sluice::suspended-- == 1); }

namespace sluice {
namespace {

using ::testing::ElementsAre;
using Next = HttpExchange::Next;

class HttpExchangeTest : public testing::Test {
 protected:
  HttpExchangeTest() { suspended = 0; }
  ~HttpExchangeTest() override {
    if (!completed_) Complete(false);
  }

  void Complete(bool ok) {
    completed_ = true;
    exchange_->Complete(ok);
    suspended = 0;  // the connection is gone
  }

  HttpExchange::Done Noted(const char* name) {
    return [this, name](bool ok) { notes_.push_back(std::string(name) + (ok ? "+" : "-")); };
  }

  // As libmicrohttpd: a buffer at a time, until there is nothing more for now.
  std::string Read(size_t max, ssize_t* last = nullptr) {
    std::string out;
    while (true) {
      std::string buffer(max, '?');
      const ssize_t size = exchange_->Read(buffer.data(), max);
      if (last != nullptr) *last = size;
      if (size <= 0) return out;
      out.append(buffer, 0, static_cast<size_t>(size));
    }
  }

  void StartStream() {
    exchange_->Start(HttpReply());
    EXPECT_EQ(exchange_->Advance(), Next::kStream);
    exchange_->TakeReply();
  }

  SteadyClock clock_;
  ConnectionWatch watch_{&clock_, absl::Seconds(60)};
  char connection_ = 0;  // nobody looks into it
  std::shared_ptr<HttpExchange> exchange_ =
      std::make_shared<HttpExchange>(reinterpret_cast<MHD_Connection*>(&connection_), 1, &watch_);
  std::vector<std::string> notes_;
  bool completed_ = false;
};

TEST_F(HttpExchangeTest, WaitsForItsAnswer) {
  EXPECT_EQ(exchange_->Advance(), Next::kSuspended);
  EXPECT_EQ(suspended, 1);
  HttpReply reply;
  reply.body = "b";
  exchange_->Reply(reply);
  EXPECT_EQ(suspended, 0) << "resumed";
  EXPECT_EQ(exchange_->Advance(), Next::kReply);
  EXPECT_EQ(exchange_->TakeReply().body, "b");
}

TEST_F(HttpExchangeTest, APieceIsDoneWhenMoreIsAskedFor) {
  StartStream();
  exchange_->Send("abcd", Noted("1"));
  exchange_->Send("ef", Noted("2"));
  std::string buffer(5, '?');
  ASSERT_EQ(exchange_->Read(buffer.data(), 5), 5);
  EXPECT_EQ(buffer, "abcde");
  EXPECT_TRUE(notes_.empty()) << "not with the socket yet";
  ASSERT_EQ(exchange_->Read(buffer.data(), 5), 1);
  EXPECT_THAT(notes_, ElementsAre("1+"));
  EXPECT_EQ(exchange_->Read(buffer.data(), 5), 0);
  EXPECT_THAT(notes_, ElementsAre("1+", "2+"));
  EXPECT_EQ(suspended, 1) << "nothing to send";
  exchange_->Send("g", nullptr);
  EXPECT_EQ(suspended, 0);
  EXPECT_EQ(Read(5), "g");
}

TEST_F(HttpExchangeTest, EndsAfterItsLastPiece) {
  StartStream();
  exchange_->Send("abc", Noted("1"));
  exchange_->End();
  ssize_t last = 0;
  EXPECT_EQ(Read(2, &last), "abc");
  EXPECT_EQ(last, MHD_CONTENT_READER_END_OF_STREAM);
  EXPECT_THAT(notes_, ElementsAre("1+"));
  Complete(true);
}

TEST_F(HttpExchangeTest, ACutTellsEveryPieceOnItsWay) {
  StartStream();
  exchange_->set_on_gone([this] { notes_.push_back("gone"); });
  exchange_->Send("abcd", Noted("1"));
  exchange_->Send("ef", Noted("2"));
  std::string buffer(4, '?');
  ASSERT_EQ(exchange_->Read(buffer.data(), 4), 4);
  exchange_->Cut();
  EXPECT_THAT(notes_, ElementsAre("1-", "2-", "gone"));
  exchange_->Cut();
  exchange_->Send("g", Noted("3"));
  EXPECT_THAT(notes_, ElementsAre("1-", "2-", "gone", "3-"));
  EXPECT_EQ(exchange_->Read(buffer.data(), 4), MHD_CONTENT_READER_END_WITH_ERROR);
}

TEST_F(HttpExchangeTest, ACutEndsTheWait) {
  EXPECT_EQ(exchange_->Advance(), Next::kSuspended);
  exchange_->Cut();
  EXPECT_EQ(suspended, 0);
  EXPECT_EQ(exchange_->Advance(), Next::kGone);
  exchange_->Reply(HttpReply());  // of a call that was under way
  EXPECT_EQ(exchange_->Advance(), Next::kGone);
}

TEST_F(HttpExchangeTest, AnEndOfTheConnectionIsACut) {
  StartStream();
  exchange_->set_on_gone([this] { notes_.push_back("gone"); });
  exchange_->Send("ab", Noted("1"));
  Complete(false);
  EXPECT_THAT(notes_, ElementsAre("1-", "gone"));
}

TEST_F(HttpExchangeTest, WhoAsksLateIsToldAtOnce) {
  Complete(false);
  exchange_->set_on_gone([this] { notes_.push_back("gone"); });
  EXPECT_THAT(notes_, ElementsAre("gone"));
}

TEST_F(HttpExchangeTest, AGoodEndIsNoCut) {
  exchange_->set_on_gone([this] { notes_.push_back("gone"); });
  exchange_->Reply(HttpReply());
  EXPECT_EQ(exchange_->Advance(), Next::kReply);
  Complete(true);
  exchange_->Cut();
  EXPECT_TRUE(notes_.empty());
}

// Two threads, as the emitter and libmicrohttpd are: one write in flight, everything in order.
TEST_F(HttpExchangeTest, PassesPiecesBetweenThreads) {
  StartStream();
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
  while (true) {
    while (suspended > 0) std::this_thread::yield();
    char buffer[7];
    const ssize_t size = exchange_->Read(buffer, sizeof(buffer));
    if (size < 0) break;
    got.append(buffer, static_cast<size_t>(size));
  }
  writer.join();
  EXPECT_EQ(got, sent);
  EXPECT_EQ(done, kPieces);
  Complete(true);
}

}  // namespace
}  // namespace sluice
