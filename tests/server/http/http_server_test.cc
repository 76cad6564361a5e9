#include "server/http/http_server.h"

#include <deque>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core/mutex.h"
#include "server/core/steady_clock.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/raw_http.h"

namespace sluice {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr absl::string_view kHeadAlone =
    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n";
constexpr absl::string_view kGetAndClose =
    "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
constexpr absl::string_view kGet = "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n";

std::string Post(absl::string_view path, absl::string_view body, absl::string_view fields = "") {
  return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(),
                      "\r\n", fields, "\r\n", body);
}

// A server that answers /echo with the body, refuses /refuse by its head, and leaves what comes for
// /wait to the test.
class HttpServerTest : public testing::Test {
 protected:
  void Start(HttpServerOptions options = {}, const Clock* clock = nullptr) {
    options.listen = {"127.0.0.1", 0};
    if (options.max_body_bytes == 0) options.max_body_bytes = 1000;
    if (options.max_bodies_bytes == 0) options.max_bodies_bytes = 100000;
    HttpServer::Handlers handlers;
    handlers.on_request = [this](const std::shared_ptr<HttpExchange>& exchange) {
      return OnRequest(exchange);
    };
    handlers.on_fault = [](const HttpFault& fault) {
      HttpReply reply;
      reply.status = fault.status;
      reply.body = fault.why;
      return reply;
    };
    absl::StatusOr<std::unique_ptr<HttpServer>> server = HttpServer::Start(
        options, clock == nullptr ? &steady_ : clock, &stats_, std::move(handlers));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  ~HttpServerTest() override {
    if (server_ != nullptr) server_->Stop();
    waiting_.clear();
  }

  HttpServer::BodyHandler OnRequest(const std::shared_ptr<HttpExchange>& exchange) {
    const std::string& path = exchange->head().path;
    if (path == "/refuse") {
      HttpReply reply;
      reply.status = 403;
      exchange->Reply(reply);
      return nullptr;
    }
    if (path != "/stranger") exchange->CountAsCall();
    if (path == "/stream") return TakeAsItComes(exchange);
    return [this, exchange, wait = path == "/wait"](const absl::StatusOr<HttpBody>& body) {
      if (body.ok() && wait) return Keep(exchange);
      HttpReply reply;
      reply.status = body.ok() ? 200 : absl::IsOutOfRange(body.status()) ? 413 : 429;
      reply.content_type = "text/plain";
      if (body.ok()) reply.body = body->text();
      if (exchange->head().path == "/large") reply.body = std::string(4 << 20, 'a');
      exchange->Reply(std::move(reply));
    };
  }

  // Answers with the body's size, or 507 once it has more than 3 MiB.
  HttpServer::BodyHandler TakeAsItComes(const std::shared_ptr<HttpExchange>& exchange) {
    const auto size = std::make_shared<size_t>(0);
    exchange->StreamBody([exchange, size](absl::string_view piece) {
      *size += piece.size();
      if (*size <= 3 << 20) return;
      HttpReply reply;
      reply.status = 507;
      exchange->Reply(std::move(reply));
    });
    return [exchange, size](const absl::StatusOr<HttpBody>& body) {
      HttpReply reply;
      reply.body = absl::StrCat(body.ok() && body->text().empty() ? "took " : "gathered ", *size);
      exchange->Reply(std::move(reply));
    };
  }

  void Keep(const std::shared_ptr<HttpExchange>& exchange) {
    MutexLock lock(&mutex_);
    waiting_.push_back(exchange);
    came_.NotifyOne();
  }
  std::shared_ptr<HttpExchange> NextWaiting() {
    MutexLock lock(&mutex_);
    while (waiting_.empty()) came_.WaitFor(&mutex_, absl::Seconds(1));
    const std::shared_ptr<HttpExchange> out = waiting_.front();
    waiting_.pop_front();
    return out;
  }

  // All that the server answers to `bytes` before it ends the connection.
  std::string Ask(absl::string_view bytes) {
    RawHttp http(server_->address());
    http.Send(bytes);
    return http.ReadToEnd();
  }

  SteadyClock steady_;
  FakeClock fake_;
  HttpServerStats stats_;
  Mutex mutex_;
  CondVar came_;
  std::deque<std::shared_ptr<HttpExchange>> waiting_ SLUICE_GUARDED_BY(mutex_);
  std::unique_ptr<HttpServer> server_;
};

// Becomes true once the exchange's client has left.
std::future<void> GoneOf(const std::shared_ptr<HttpExchange>& exchange) {
  auto gone = std::make_shared<std::promise<void>>();
  std::future<void> out = gone->get_future();
  exchange->set_on_gone([gone] { gone->set_value(); });
  return out;
}

void ExpectSoon(const std::future<void>& future) {
  EXPECT_EQ(future.wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

// ---- Requests and answers ----

TEST_F(HttpServerTest, AnswersInOrderOnOneConnection) {
  Start();
  RawHttp http(server_->address());
  http.Send(absl::StrCat(Post("/echo", "first"), Post("/refuse", "dropped"),
                         "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                         "6\r\nsecond\r\n0\r\n\r\n",
                         Post("/echo", "last")));
  const std::string& got = http.ReadUntil("last");
  EXPECT_EQ(RawHttp::Count(got), 4);
  EXPECT_LT(got.find("first"), got.find("403"));
  EXPECT_LT(got.find("403"), got.find("second"));
  EXPECT_THAT(got, HasSubstr("Connection: keep-alive\r\n"));
  EXPECT_FALSE(http.closed());
  EXPECT_EQ(stats_.requests.value(), 4u);
}

TEST_F(HttpServerTest, EndsTheConnectionWhereItIsAskedTo) {
  Start();
  EXPECT_THAT(Ask("GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
              HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(Ask("GET /echo HTTP/1.0\r\n\r\n"), HasSubstr("Connection: close\r\n"));
  RawHttp http(server_->address());
  http.Send("GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_THAT(http.ReadUntil("\r\n\r\n"), HasSubstr("Connection: keep-alive\r\n"));
}

TEST_F(HttpServerTest, AHeadHasNoBody) {
  Start();
  const std::string got =
      Ask("HEAD /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody");
  EXPECT_THAT(got, HasSubstr("Content-Length: 4\r\n"));
  EXPECT_THAT(got, EndsWith("\r\n\r\n"));
}

TEST_F(HttpServerTest, OneAnswerToNonsenseAndTheEnd) {
  Start();
  const std::string got = Ask(absl::StrCat(kGet, "nonsense\r\n\r\n", kGet));
  EXPECT_EQ(RawHttp::Count(got), 2);
  EXPECT_THAT(got, HasSubstr("HTTP/1.1 400 Bad Request\r\n"));
  EXPECT_EQ(stats_.malformed.value(), 1u);
  const std::string coded = Ask(Post("/echo", "a", "Transfer-Encoding: x\r\n"));
  EXPECT_EQ(RawHttp::StatusOf(coded), 501);
  EXPECT_EQ(RawHttp::Count(coded), 1);
  EXPECT_EQ(stats_.unknown_coding.value(), 1u);
}

TEST_F(HttpServerTest, NonsenseInTheMiddleOfABody) {
  Start();
  const std::string got =
      Ask("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n");
  EXPECT_EQ(RawHttp::StatusOf(got), 400);
  EXPECT_EQ(RawHttp::Count(got), 1);
}

TEST_F(HttpServerTest, SaysContinue) {
  Start();
  RawHttp http(server_->address());
  http.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(http.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  http.Send("body");
  EXPECT_THAT(http.ReadUntil("body"), HasSubstr("HTTP/1.1 200 OK"));
}

TEST_F(HttpServerTest, RefusesInsteadOfContinue) {
  Start();
  const std::string got =
      Ask("POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_THAT(got, StartsWith("HTTP/1.1 403 Forbidden\r\n"));
  EXPECT_THAT(got, HasSubstr("Connection: close\r\n"));
}

TEST_F(HttpServerTest, BoundsABody) {
  Start();
  EXPECT_EQ(RawHttp::StatusOf(Ask(Post("/echo", std::string(1001, 'a')))), 413);
  std::string chunked = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 101; ++i) chunked += "a\r\n0123456789\r\n";
  EXPECT_EQ(RawHttp::StatusOf(Ask(chunked)), 413);
  EXPECT_EQ(stats_.too_large.value(), 2u);
  RawHttp http(server_->address());
  http.Send(Post("/echo", std::string(1000, 'a')));
  EXPECT_THAT(http.ReadUntil("aaa"), HasSubstr(" 200 OK"));
}

// The client gets to read the answer although it has not stopped to send.
TEST_F(HttpServerTest, AnAnswerSurvivesALargeUpload) {
  Start();
  RawHttp http(server_->address());
  http.Send(absl::StrCat("POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n"));
  EXPECT_TRUE(http.Send(std::string(8'000'000, 'a')));
  EXPECT_EQ(RawHttp::StatusOf(http.ReadUntil("\r\n\r\n")), 403);
}

TEST_F(HttpServerTest, ABodyMayBeTakenAsItComes) {
  Start();
  RawHttp http(server_->address());
  http.Send(absl::StrCat(Post("/stream", std::string(2 << 20, 'a')), kGetAndClose));
  const std::string got = http.ReadToEnd();
  EXPECT_THAT(got, HasSubstr("took 2097152"));
  EXPECT_EQ(RawHttp::Count(got), 2);
  EXPECT_EQ(stats_.too_large.value(), 0u);
  EXPECT_THAT(Ask(Post("/stream", std::string(5 << 20, 'a'))), HasSubstr(" 507 "));
}

TEST_F(HttpServerTest, ABodyThatIsTakenAsItComesMustGoOn) {
  Start({}, &fake_);
  RawHttp http(server_->address());
  http.Send(absl::StrCat("POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n",
                         std::string(640 * 1024, 'a')));
  while (stats_.requests.value() == 0) std::this_thread::yield();
  // Its bytes have earned it ten seconds beyond the minute.
  fake_.Advance(absl::Seconds(200));
  EXPECT_THAT(http.ReadToEnd(), HasSubstr(" 408 "));
}

TEST_F(HttpServerTest, BoundsAllBodies) {
  HttpServerOptions options;
  options.max_bodies_bytes = 1500;
  Start(options);
  const std::string request = Post("/echo", std::string(1000, 'a'));
  RawHttp first(server_->address());
  first.Send(request.substr(0, request.size() - 100));
  RawHttp other(server_->address());
  other.Send(kGet);  // by when the server has 900 bytes of the first
  other.ReadUntil("\r\n\r\n");
  EXPECT_EQ(RawHttp::StatusOf(Ask(Post("/echo", std::string(1000, 'b')))), 429);
  first.Send(request.substr(request.size() - 100));
  EXPECT_THAT(first.ReadUntil("aaa"), HasSubstr(" 200 OK"));
  RawHttp second(server_->address());
  second.Send(Post("/echo", std::string(1000, 'b')));
  EXPECT_THAT(second.ReadUntil("bbb"), HasSubstr(" 200 OK"));
}

// ---- Streams ----

TEST_F(HttpServerTest, StreamsInChunks) {
  Start();
  RawHttp http(server_->address());
  http.Send(Post("/wait", ""));
  const std::shared_ptr<HttpExchange> exchange = NextWaiting();
  exchange->Start(HttpReply());
  std::promise<bool> sent;
  exchange->Send("hello", [&](bool ok) { sent.set_value(ok); });
  EXPECT_THAT(http.ReadUntil("hello\r\n"), HasSubstr("\r\n\r\n5\r\nhello\r\n"));
  EXPECT_TRUE(sent.get_future().get());
  exchange->End();
  EXPECT_THAT(http.ReadUntil("0\r\n\r\n"), EndsWith("5\r\nhello\r\n0\r\n\r\n"));
  http.Send(Post("/echo", "and on"));
  EXPECT_THAT(http.ReadUntil("and on"), EndsWith("and on"));
}

// Nothing is sent for a second, then the head, then a comment for each silence.
TEST_F(HttpServerTest, AStreamOfEventsIsNeverSilentForLong) {
  HttpServerOptions options;
  options.events_silence = absl::Seconds(5);
  Start(options, &fake_);
  RawHttp http(server_->address());
  http.Send(Post("/wait", ""));
  const std::shared_ptr<HttpExchange> exchange = NextWaiting();
  exchange->PlanEvents(HttpReply(), fake_.Now());
  RawHttp other(server_->address());
  other.Send(Post("/wait", ""));
  const std::shared_ptr<HttpExchange> refused = NextWaiting();
  refused->PlanEvents(HttpReply(), fake_.Now());
  fake_.Advance(absl::Milliseconds(900));
  HttpReply error;
  error.status = 429;
  EXPECT_TRUE(refused->ReplyInstead(error)) << "a refusal that comes soon keeps its status";
  EXPECT_EQ(RawHttp::StatusOf(other.ReadUntil("\r\n\r\n")), 429);
  EXPECT_EQ(http.ReadUntil("x", 300), "") << "not yet";
  fake_.Advance(absl::Milliseconds(100));
  EXPECT_THAT(http.ReadUntil("\r\n\r\n"), EndsWith("\r\n\r\n"));
  EXPECT_EQ(RawHttp::StatusOf(http.ReadUntil("\r\n\r\n")), 200);
  fake_.Advance(absl::Seconds(5));
  EXPECT_THAT(http.ReadUntil("here\n\n\r\n"), EndsWith("\r\n\r\ne\r\n: still here\n\n\r\n"));
  exchange->Send("data: 1\n\n", nullptr);
  EXPECT_THAT(http.ReadUntil("data: 1\n\n\r\n"), EndsWith("\r\n9\r\ndata: 1\n\n\r\n"));
  fake_.Advance(absl::Seconds(4));
  exchange->Send("data: 2\n\n", nullptr);
  http.ReadUntil("data: 2\n\n\r\n");
  fake_.Advance(absl::Seconds(4));
  exchange->End();
  EXPECT_EQ(RawHttp::Count(http.ReadUntil("0\r\n\r\n"), ": still here"), 1);
}

TEST_F(HttpServerTest, StreamsToTheEndOfAnOldConnection) {
  Start();
  RawHttp http(server_->address());
  http.Send("POST /wait HTTP/1.0\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n");
  const std::shared_ptr<HttpExchange> exchange = NextWaiting();
  exchange->Start(HttpReply());
  exchange->Send("hello", nullptr);
  exchange->End();
  EXPECT_THAT(http.ReadToEnd(), EndsWith("\r\n\r\nhello"));
}

TEST_F(HttpServerTest, ASlowReaderHoldsItsPieceBackAndCanBeCut) {
  Start();
  RawHttp http(server_->address(), 4096);
  http.Send(Post("/wait", ""));
  const std::shared_ptr<HttpExchange> exchange = NextWaiting();
  std::future<void> gone = GoneOf(exchange);
  exchange->Start(HttpReply());
  std::promise<bool> sent;
  std::future<bool> ok = sent.get_future();
  exchange->Send(std::string(1 << 20, 'a'), [&](bool written) { sent.set_value(written); });
  EXPECT_EQ(ok.wait_for(std::chrono::milliseconds(300)), std::future_status::timeout)
      << "a megabyte does not fit into what the system holds";
  exchange->Cut();
  EXPECT_FALSE(ok.get());
  ExpectSoon(gone);
  http.ReadToEnd();
  EXPECT_TRUE(http.closed());
}

// ---- Clients that leave ----

TEST_F(HttpServerTest, TellsOfAClientThatLeaves) {
  Start();
  std::future<void> gone;
  {
    RawHttp http(server_->address());
    http.Send(Post("/wait", ""));
    gone = GoneOf(NextWaiting());
  }
  ExpectSoon(gone);
}

TEST_F(HttpServerTest, TellsOfOneThatShutsItsSideAlone) {
  Start();
  RawHttp http(server_->address());
  http.Send(Post("/wait", ""));
  const std::future<void> gone = GoneOf(NextWaiting());
  http.HalfClose();
  ExpectSoon(gone);
  EXPECT_EQ(http.ReadToEnd(), "");
}

TEST_F(HttpServerTest, AnswersOneThatShutsItsSideWhereThatIsWanted) {
  HttpServerOptions options;
  options.half_close_cancels = false;
  Start(options);
  RawHttp http(server_->address());
  http.Send(Post("/wait", ""));
  const std::shared_ptr<HttpExchange> exchange = NextWaiting();
  http.HalfClose();
  HttpReply reply;
  reply.body = "here";
  exchange->Reply(reply);
  EXPECT_THAT(http.ReadToEnd(), EndsWith("here"));
}

TEST_F(HttpServerTest, AnswersWhatCameBeforeTheEnd) {
  Start();
  RawHttp http(server_->address());
  http.Send(absl::StrCat(Post("/echo", "1"), Post("/echo", "2")));
  http.HalfClose();
  EXPECT_EQ(RawHttp::Count(http.ReadToEnd()), 2);
}

TEST_F(HttpServerTest, TellsOfOneThatHasSentFarAhead) {
  Start();
  std::future<void> gone;
  {
    RawHttp http(server_->address());
    http.Send(Post("/wait", ""));
    gone = GoneOf(NextWaiting());
    http.Send(std::string(60'000, 'a'));
  }
  ExpectSoon(gone);
}

// ---- Time ----

TEST_F(HttpServerTest, AHeadThatDoesNotComeIsToldSo) {
  HttpServerOptions options;
  options.head_bound = absl::Seconds(10);
  Start(options, &fake_);
  RawHttp http(server_->address());
  http.Send("GET /echo HTTP/1.1\r\nX: ");
  RawHttp other(server_->address());
  other.Send(kGet);  // by when the first has been read
  other.ReadUntil("\r\n\r\n");
  fake_.Advance(absl::Seconds(9));
  EXPECT_EQ(http.ReadUntil("\r\n\r\n", 400), "");
  http.Send("a");  // a byte now and then changes nothing
  fake_.Advance(absl::Seconds(2));
  EXPECT_EQ(RawHttp::StatusOf(http.ReadToEnd()), 408);
  EXPECT_EQ(stats_.late.value(), 1u);
}

TEST_F(HttpServerTest, ABodyThatDoesNotComeIsToldSo) {
  Start({}, &fake_);
  RawHttp http(server_->address());
  http.Send(kHeadAlone);
  while (stats_.requests.value() == 0) std::this_thread::yield();
  fake_.Advance(absl::Seconds(59));
  EXPECT_EQ(http.ReadUntil("\r\n\r\n", 400), "");
  fake_.Advance(absl::Seconds(2));
  EXPECT_EQ(RawHttp::StatusOf(http.ReadToEnd()), 408);
}

TEST_F(HttpServerTest, AnIdleConnectionEnds) {
  Start({}, &fake_);
  RawHttp idle(server_->address());
  RawHttp used(server_->address());
  used.Send(kGet);
  used.ReadUntil("\r\n\r\n");
  RawHttp served(server_->address());
  served.Send(Post("/wait", ""));
  const std::shared_ptr<HttpExchange> exchange = NextWaiting();
  fake_.Advance(absl::Seconds(61));
  EXPECT_EQ(idle.ReadToEnd(), "");
  used.ReadToEnd();
  EXPECT_TRUE(used.closed());
  exchange->Reply(HttpReply());  // which may take as long as it takes
  EXPECT_EQ(RawHttp::StatusOf(served.ReadUntil("\r\n\r\n")), 200);
}

// ---- Many ----

TEST_F(HttpServerTest, StrangersMakeRoomOldestFirst) {
  HttpServerOptions options;
  options.connections.bounds.max_connections = 8;
  Start(options);
  std::vector<std::unique_ptr<RawHttp>> peers;
  const auto connect = [&] {
    peers.push_back(std::make_unique<RawHttp>(server_->address()));
    return peers.back().get();
  };
  RawHttp* caller = connect();  // the oldest, but it has called
  caller->Send(kGet);
  caller->ReadUntil("\r\n\r\n");
  RawHttp* waits = connect();
  waits->Send(Post("/wait", ""));
  const std::shared_ptr<HttpExchange> exchange = NextWaiting();
  RawHttp* drips = connect();
  drips->Send("GET / HTTP/1.1\r\nX: ");
  RawHttp* knows_nobody = connect();
  knows_nobody->Send("GET /stranger HTTP/1.1\r\nHost: x\r\n\r\n");
  knows_nobody->ReadUntil("\r\n\r\n");
  for (int i = 0; i < 2; ++i) connect();  // six: three quarters
  connect();                              // above
  EXPECT_EQ(drips->ReadToEnd(), "");
  connect();
  knows_nobody->ReadToEnd();
  EXPECT_TRUE(knows_nobody->closed());
  for (int i = 0; i < 20; ++i) connect();
  peers.back()->Send(kGet);  // by when all of them have been let in
  peers.back()->ReadUntil("\r\n\r\n");
  EXPECT_EQ(stats_.evicted_strangers.value(), 22u);
  EXPECT_EQ(server_->listener()->connections().stats().shed_connections.value(), 0u);
  caller->Send(Post("/echo", "still here"));
  EXPECT_THAT(caller->ReadUntil("still here"), HasSubstr("still here"));
  exchange->Reply(HttpReply());
  EXPECT_EQ(RawHttp::StatusOf(waits->ReadUntil("\r\n\r\n")), 200);
}

TEST_F(HttpServerTest, WhoWaitsForARequestMakesRoomLast) {
  HttpServerOptions options;
  options.connections.bounds.max_connections = 4;
  Start(options);
  std::vector<std::unique_ptr<RawHttp>> peers;
  for (int i = 0; i < 3; ++i) {
    peers.push_back(std::make_unique<RawHttp>(server_->address()));
    peers.back()->Send(kGet);
    peers.back()->ReadUntil("\r\n\r\n");
  }
  peers[0]->Send(Post("/echo", "again"));  // the second has waited longest now
  peers[0]->ReadUntil("again");
  EXPECT_EQ(stats_.evicted_idle.value(), 0u);
  RawHttp fourth(server_->address());
  fourth.Send(Post("/wait", ""));
  NextWaiting();
  peers[1]->ReadToEnd();
  EXPECT_TRUE(peers[1]->closed());
  EXPECT_EQ(stats_.evicted_idle.value(), 1u);
  peers[0]->Send(Post("/echo", "third"));
  EXPECT_THAT(peers[0]->ReadUntil("third"), HasSubstr("third"));
}

TEST_F(HttpServerTest, WhoDoesNotReadMakesRoomWhereThatIsWanted) {
  for (const bool wanted : {false, true}) {
    HttpServerOptions options;
    options.connections.bounds.max_connections = 4;
    options.evict_slow_readers = wanted;
    Start(options);
    std::vector<std::unique_ptr<RawHttp>> peers;
    for (int i = 0; i < 4; ++i) {
      peers.push_back(std::make_unique<RawHttp>(server_->address(), 4096));
      peers.back()->Send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
      peers.back()->ReadUntil("\r\n\r\n");
    }
    EXPECT_EQ(RawHttp::StatusOf(Ask(kGetAndClose)), wanted ? 200 : 0);
  }
}

TEST_F(HttpServerTest, CallersWithCredentialsKeepTheirPlaceWhileTheBodyComes) {
  HttpServerOptions options;
  options.connections.bounds.max_connections = 4;
  options.callers_authenticate = true;
  Start(options);
  RawHttp uploads(server_->address());
  uploads.Send(kHeadAlone);
  while (stats_.requests.value() == 0) std::this_thread::yield();
  std::vector<std::unique_ptr<RawHttp>> peers;
  for (int i = 0; i < 10; ++i) peers.push_back(std::make_unique<RawHttp>(server_->address()));
  uploads.Send("body");
  EXPECT_THAT(uploads.ReadUntil("body"), EndsWith("body"));
}

// ---- Its end ----

TEST_F(HttpServerTest, StopsWithItsAnswersOut) {
  Start();
  RawHttp idle(server_->address());
  RawHttp http(server_->address());
  http.Send(Post("/wait", ""));
  const std::shared_ptr<HttpExchange> exchange = NextWaiting();
  server_->Drain();
  HttpReply reply;
  reply.body = "the last";
  exchange->Reply(reply);
  server_->Stop();
  EXPECT_THAT(http.ReadToEnd(), EndsWith("the last"));
  EXPECT_THAT(http.ReadToEnd(), HasSubstr("Connection: close\r\n"));
  EXPECT_EQ(idle.ReadToEnd(), "");
}

TEST_F(HttpServerTest, StopsAlsoWhereSomebodyNeverAnswers) {
  Start();
  RawHttp http(server_->address());
  http.Send(Post("/wait", ""));
  const std::shared_ptr<HttpExchange> exchange = NextWaiting();
  const std::future<void> gone = GoneOf(exchange);
  server_->Stop();
  ExpectSoon(gone);
  EXPECT_EQ(http.ReadToEnd(), "");
  exchange->Reply(HttpReply());  // late, and allowed
}

TEST_F(HttpServerTest, SaysWhyItCannotListen) {
  Start();
  HttpServerOptions options;
  options.listen = server_->address();
  const auto again = HttpServer::Start(options, &steady_, &stats_, {});
  EXPECT_TRUE(absl::IsFailedPrecondition(again.status()));
  EXPECT_THAT(again.status().message(), HasSubstr("Address already in use"));
}

}  // namespace
}  // namespace sluice
