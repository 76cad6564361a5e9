#include "client/client.h"

#include <string>
#include <thread>
#include <vector>

#include "client/cancellation.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Health = grpc::health::v1::HealthCheckResponse;

class ClientTest : public ::testing::Test {
 protected:
  // Generate goes on until the reader leaves.
  void GenerateForever() {
    server_.generate = [this](grpc::ServerWriter<v1::GenerateResponse>* writer) {
      while (writer->Write(DeltaEvent(0, "x"))) {
      }
      left_ = true;
      return grpc::Status::CANCELLED;
    };
  }

  std::atomic<bool> left_ = false;  // before server_, whose threads write it
  FakeServer server_;
  Client client_ = Client({.address = server_.address()});
};

TEST_F(ClientTest, GenerateHandsOutEventsInOrder) {
  v1::GenerateRequest request;
  request.set_text("prompt");
  std::string text;
  int events = 0;
  const absl::Status status = client_.Generate(request, {}, [&](const v1::GenerateResponse& event) {
    ++events;
    text += event.delta().text();
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(text, "Hello there");
  EXPECT_EQ(events, 4);
  EXPECT_EQ(server_.generate_request.text(), "prompt");
}

TEST_F(ClientTest, GenerateEndsWhenTheCallerHasEnough) {
  GenerateForever();
  int events = 0;
  const absl::Status status =
      client_.Generate({}, {}, [&](const v1::GenerateResponse&) { return ++events < 3; });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(events, 3);
}

TEST_F(ClientTest, CancelFromAnotherThreadEndsTheCall) {
  GenerateForever();
  Cancellation cancellation;
  std::thread canceller;
  const absl::Status status =
      client_.Generate({}, {.cancellation = &cancellation}, [&](const v1::GenerateResponse&) {
        if (!canceller.joinable()) {
          canceller = std::thread([&cancellation] { EXPECT_TRUE(cancellation.Cancel()); });
        }
        return true;
      });
  canceller.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

TEST_F(ClientTest, CallsAfterACancelEndAtOnce) {
  Cancellation cancellation;
  EXPECT_FALSE(cancellation.Cancel());
  EXPECT_TRUE(cancellation.cancelled());
  const auto model = client_.GetModel({}, {.cancellation = &cancellation});
  EXPECT_EQ(model.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(ClientTest, TimeoutBecomesTheDeadline) {
  GenerateForever();
  const absl::Status status = client_.Generate({}, {.timeout = absl::Milliseconds(20)},
                                               [](const v1::GenerateResponse&) { return true; });
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientTest, GenerateReportsTheFinalStatus) {
  server_.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  const absl::Status status =
      client_.Generate({}, {}, [](const v1::GenerateResponse&) { return true; });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "full");
}

TEST_F(ClientTest, ScoreHandsOutEvents) {
  server_.score_events.resize(2);
  server_.score_events[0].mutable_logprobs()->add_logprobs()->set_token_id(7);
  server_.score_events[1].mutable_summary()->set_tokens(2);
  int64_t tokens = 0;
  const absl::Status status = client_.Score({}, {}, [&](const v1::ScoreResponse& event) {
    tokens += event.summary().tokens();
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(tokens, 2);
}

TEST_F(ClientTest, UnaryCallsAnswer) {
  server_.tokenize_response.add_token_ids(5);
  server_.detokenize_response.set_text("five");
  EXPECT_EQ(client_.Tokenize({}, {})->token_ids(0), 5);
  EXPECT_EQ(client_.Detokenize({}, {})->text(), "five");
  EXPECT_EQ(client_.GetModel({}, {})->name(), "tiny");
  EXPECT_EQ(*client_.CheckHealth("", {}), Health::SERVING);
}

TEST_F(ClientTest, WatchHealthFollowsChanges) {
  server_.health = {Health::SERVING, Health::NOT_SERVING, Health::SERVING};
  std::vector<Client::HealthStatus> seen;
  const absl::Status status = client_.WatchHealth("", {}, [&](Client::HealthStatus now) {
    seen.push_back(now);
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(seen, ElementsAre(Health::SERVING, Health::NOT_SERVING, Health::SERVING));
}

TEST(UnreachedClientTest, SaysWhatToDo) {
  const Client client({.address = "127.0.0.1:1"});
  const auto model = client.GetModel({}, {});
  EXPECT_EQ(model.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(model.status().message()),
              HasSubstr("is sluiced running at 127.0.0.1:1?"));
}

TEST(FinishReasonNameTest, IsShort) {
  EXPECT_EQ(FinishReasonName(v1::FINISH_REASON_MAX_TOKENS), "max_tokens");
  EXPECT_EQ(FinishReasonName(v1::FINISH_REASON_EOS), "eos");
}

}  // namespace
}  // namespace sluice
