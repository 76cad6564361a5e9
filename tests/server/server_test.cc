// The whole daemon in one process: bundled model, real gRPC and HTTP on ports of their own.
#include "server/server.h"

#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "server/address.h"
#include "tests/fakes/raw_http.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;

ServerOptions TestOptions() {
  ServerOptions options;
  options.model = SourcePath("deploy/models/classics-12m");
  options.listen = "127.0.0.1:0";
  options.admin_listen = "127.0.0.1:0";
  options.http_listen = "";
  return options;
}

struct Reply {
  grpc::Status status;
  std::vector<v1::GenerateResponse> messages;
  std::string text;
};

class ServerTest : public testing::Test {
 protected:
  void Start(const ServerOptions& options = TestOptions()) {
    absl::StatusOr<std::unique_ptr<Server>> started = Server::Start(options);
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    stub_ = v1::InferenceService::NewStub(channel_);
  }

  static v1::GenerateRequest Story(int max_new_tokens) {
    v1::GenerateRequest request;
    request.set_text("Once upon a time");
    request.mutable_sampling()->set_seed(1);
    request.mutable_stop()->set_max_new_tokens(max_new_tokens);
    request.mutable_stop()->set_ignore_eos(true);
    return request;
  }

  static Reply ReadAll(grpc::ClientReader<v1::GenerateResponse>* reader) {
    Reply reply;
    for (v1::GenerateResponse message; reader->Read(&message);) {
      reply.text += message.delta().text();
      reply.messages.push_back(message);
    }
    reply.status = reader->Finish();
    return reply;
  }

  Reply Generate(const v1::GenerateRequest& request, grpc::ClientContext* context) {
    return ReadAll(stub_->Generate(context, request).get());
  }
  Reply Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    return Generate(request, &context);
  }

  std::string Get(const std::string& path, int* status = nullptr) {
    std::string body;
    const int answered = RawGet(*ParseAddress(server_->admin_address()), path, &body);
    if (status != nullptr) *status = answered;
    return body;
  }

  // Value of the sample whose line begins with `name`, labels included.
  double Metric(const std::string& name) {
    for (const absl::string_view line : absl::StrSplit(Get("/metrics"), '\n')) {
      double value;
      if (absl::StartsWith(line, name + " ") &&
          absl::SimpleAtod(line.substr(name.size() + 1), &value))
        return value;
    }
    ADD_FAILURE() << "no metric " << name;
    return -1;
  }

  // Waits until nothing is left of any call.
  void ExpectNothingLeft() {
    for (const char* name :
         {"sluice_live_requests", "sluice_streams", "sluice_permits", "sluice_queued_requests",
          "sluice_queued_tokens", "sluice_stream_ring_bytes", "sluice_sequences_running",
          "sluice_state_slots{tier=\"device\",status=\"used\"}"}) {
      double value = -1;
      for (int i = 0; i < 1000 && (value = Metric(name)) != 0; ++i)
        absl::SleepFor(absl::Milliseconds(5));
      EXPECT_EQ(value, 0) << name;
    }
  }

  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
};

TEST_F(ServerTest, GenerateStreams) {
  Start();
  v1::GenerateRequest request = Story(20);
  request.set_request_id("my request");
  grpc::ClientContext context;
  const Reply reply = Generate(request, &context);
  ASSERT_TRUE(reply.status.ok()) << reply.status.error_message();
  ASSERT_GE(reply.messages.size(), 3u);
  EXPECT_EQ(reply.messages.front().started().request_id(), "my request");
  EXPECT_EQ(reply.messages.front().started().seed(), 1u);
  EXPECT_EQ(reply.messages.back().finished().reason(), v1::FINISH_REASON_MAX_TOKENS);
  EXPECT_EQ(reply.messages.back().finished().usage().new_tokens(), 20);
  for (size_t i = 0; i < reply.messages.size(); ++i)
    EXPECT_EQ(reply.messages[i].sequence_number(), i);
  EXPECT_FALSE(reply.text.empty());
  const auto& metadata = context.GetServerInitialMetadata();
  const auto id = metadata.find("x-request-id");
  ASSERT_NE(id, metadata.end());
  EXPECT_EQ(std::string(id->second.data(), id->second.size()), "my request");
  EXPECT_EQ(Generate(request).text, reply.text) << "same seed, other text";
  ExpectNothingLeft();
}

TEST_F(ServerTest, EverySequenceFinishesOnce) {
  Start();
  v1::GenerateRequest request = Story(5);
  request.set_n(3);
  request.mutable_output()->set_token_ids(true);
  std::map<int, int> finished;
  std::map<int, int> tokens;
  const Reply reply = Generate(request);
  for (const v1::GenerateResponse& message : reply.messages) {
    if (message.has_finished()) ++finished[message.finished().index()];
    if (message.has_delta()) tokens[message.delta().index()] += message.delta().token_ids_size();
  }
  EXPECT_EQ(finished, (std::map<int, int>{{0, 1}, {1, 1}, {2, 1}}));
  EXPECT_EQ(tokens, (std::map<int, int>{{0, 5}, {1, 5}, {2, 5}}));
}

TEST_F(ServerTest, ErrorsCarryDetails) {
  Start();
  v1::GenerateRequest request = Story(5);
  request.mutable_sampling()->set_temperature(-1);
  const Reply reply = Generate(request);
  EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(reply.status.error_details()));
  google::rpc::BadRequest bad;
  bool found = false;
  for (const google::protobuf::Any& detail : details.details())
    found = found || detail.UnpackTo(&bad);
  ASSERT_TRUE(found);
  EXPECT_EQ(bad.field_violations(0).field(), "sampling.temperature");
}

TEST_F(ServerTest, ScoreTokenizeDetokenizeGetModel) {
  Start();
  v1::TokenizeRequest text;
  text.set_text("It was the best of times");
  v1::TokenizeResponse tokens;
  grpc::ClientContext tokenize;
  ASSERT_TRUE(stub_->Tokenize(&tokenize, text, &tokens).ok());

  v1::DetokenizeRequest ids;
  *ids.mutable_token_ids() = tokens.token_ids();
  v1::DetokenizeResponse back;
  grpc::ClientContext detokenize;
  ASSERT_TRUE(stub_->Detokenize(&detokenize, ids, &back).ok());
  EXPECT_EQ(back.text(), text.text());

  v1::ScoreRequest score;
  score.set_text(text.text());
  score.set_top_logprobs(2);
  grpc::ClientContext scoring;
  const auto reader = stub_->Score(&scoring, score);
  int scored = 0;
  v1::ScoreResponse last;
  for (v1::ScoreResponse message; reader->Read(&message); last = message)
    scored += message.logprobs().logprobs_size();
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_EQ(scored, tokens.token_ids_size() - 1);
  EXPECT_EQ(last.summary().tokens(), tokens.token_ids_size());
  EXPECT_EQ(last.summary().next_size(), 2);

  v1::Model model;
  grpc::ClientContext get_model;
  ASSERT_TRUE(stub_->GetModel(&get_model, v1::GetModelRequest(), &model).ok());
  EXPECT_EQ(model.name(), "classics-12m");
  EXPECT_EQ(model.vocab_size(), 4096);
  EXPECT_EQ(model.state_bytes(), 6 * 3 * 64 * 128 * 4);
  EXPECT_EQ(model.limits().max_sequences(), 64);
  EXPECT_EQ(model.fingerprint().size(), 32u);
}

TEST_F(ServerTest, ATraceparentComesBackWithASpanOfItsOwn) {
  Start();
  const std::string parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  for (const int times : {0, 1, 2}) {  // twice is as good as not at all
    grpc::ClientContext context;
    for (int i = 0; i < times; ++i) context.AddMetadata("traceparent", parent);
    EXPECT_TRUE(Generate(Story(2), &context).status.ok());
    const auto& trailers = context.GetServerTrailingMetadata();
    ASSERT_EQ(trailers.count("traceparent"), times == 1 ? 1u : 0u);
    if (times != 1) continue;
    const grpc::string_ref found = trailers.find("traceparent")->second;
    const std::string answer(found.data(), found.size());
    EXPECT_EQ(answer.substr(0, 36), parent.substr(0, 36));
    EXPECT_NE(answer.substr(36, 16), parent.substr(36, 16));
  }
}

TEST_F(ServerTest, LargeTextsAreEncodedAside) {
  ServerOptions options = TestOptions();
  options.max_prompt_tokens = 1000;
  Start(options);
  std::string text;
  while (text.size() < 100000) text += "It was the best of times. ";
  v1::TokenizeRequest tokenize;
  tokenize.set_text(text);
  v1::TokenizeResponse tokens;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Tokenize(&context, tokenize, &tokens).ok());
  EXPECT_GT(tokens.token_ids_size(), 10000);
  v1::GenerateRequest request = Story(1);
  request.set_text(text);
  EXPECT_EQ(Generate(request).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request.set_text(std::string(5 << 20, 'x'));
  EXPECT_EQ(Generate(request).status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(ServerTest, DeadlinesAndCancelsLeaveNothing) {
  Start();
  grpc::ClientContext late;
  late.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  EXPECT_EQ(Generate(Story(1000000), &late).status.error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);

  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  for (int i = 0; i < 40; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->Generate(contexts.back().get(), Story(1000000)));
  }
  for (int i = 0; i < 40; ++i) {
    v1::GenerateResponse message;
    for (int reads = 0; reads < i % 7; ++reads)
      readers[i]->Read(&message);  // some before their first token
    contexts[i]->TryCancel();
  }
  for (const auto& reader : readers) {
    EXPECT_EQ(ReadAll(reader.get()).status.error_code(), grpc::StatusCode::CANCELLED);
  }
  ExpectNothingLeft();
  EXPECT_TRUE(Generate(Story(3)).status.ok());
}

TEST_F(ServerTest, AFullHouseSaysWhenToRetry) {
  ServerOptions options = TestOptions();
  options.max_streams = 1;
  Start(options);
  grpc::ClientContext context;
  const auto running = stub_->Generate(&context, Story(1000000));
  v1::GenerateResponse first;
  ASSERT_TRUE(running->Read(&first));
  grpc::ClientContext refused_context;
  const Reply refused = Generate(Story(1), &refused_context);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  // Trailers alone, as proxies and gRPC's own clients want of a call that they shall try again.
  EXPECT_TRUE(refused_context.GetServerInitialMetadata().empty());
  EXPECT_EQ(refused_context.GetServerTrailingMetadata().count("x-request-id"), 1u);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(refused.status.error_details()));
  google::rpc::RetryInfo retry;
  bool found = false;
  for (const google::protobuf::Any& detail : details.details())
    found = found || detail.UnpackTo(&retry);
  EXPECT_TRUE(found);
  context.TryCancel();
  ReadAll(running.get());
}

TEST_F(ServerTest, DrainFinishesWhatRuns) {
  ServerOptions options = TestOptions();
  options.drain_timeout = absl::Minutes(5);  // sanitized, the story takes longer than the default
  Start(options);
  const auto health = grpc::health::v1::Health::NewStub(channel_);
  HealthCheckRequest everything;
  HealthCheckResponse answer;
  grpc::ClientContext check;
  ASSERT_TRUE(health->Check(&check, everything, &answer).ok());
  EXPECT_EQ(answer.status(), HealthCheckResponse::SERVING);
  grpc::ClientContext watch;
  const auto watching = health->Watch(&watch, everything);
  ASSERT_TRUE(watching->Read(&answer));
  EXPECT_EQ(answer.status(), HealthCheckResponse::SERVING);

  grpc::ClientContext context;
  const auto running = stub_->Generate(&context, Story(4000));
  v1::GenerateResponse first;
  ASSERT_TRUE(running->Read(&first));
  std::thread shutdown([&] { server_->Shutdown(); });
  ASSERT_TRUE(watching->Read(&answer));
  EXPECT_EQ(answer.status(), HealthCheckResponse::NOT_SERVING);
  int ready = 0;
  Get("/readyz", &ready);
  EXPECT_EQ(ready, 503);
  int healthy = 0;
  Get("/healthz", &healthy);
  EXPECT_EQ(healthy, 200);
  // The watch hears of the drain a moment before new calls do.
  grpc::StatusCode refused = grpc::StatusCode::OK;
  for (int i = 0; i < 100 && refused == grpc::StatusCode::OK; ++i)
    refused = Generate(Story(1)).status.error_code();
  EXPECT_EQ(refused, grpc::StatusCode::UNAVAILABLE);
  const Reply reply = ReadAll(running.get());
  EXPECT_TRUE(reply.status.ok()) << reply.status.error_message();
  EXPECT_EQ(reply.messages.back().finished().usage().new_tokens(), 4000);
  EXPECT_FALSE(watching->Read(&answer));
  EXPECT_EQ(watching->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  shutdown.join();
}

TEST_F(ServerTest, HurryEndsADrain) {
  Start();
  grpc::ClientContext context;
  const auto running = stub_->Generate(&context, Story(1000000));
  v1::GenerateResponse first;
  ASSERT_TRUE(running->Read(&first));
  server_->Hurry();
  std::thread shutdown([&] { server_->Shutdown(); });
  EXPECT_EQ(ReadAll(running.get()).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  shutdown.join();
}

TEST_F(ServerTest, UnknownServicesOfHealth) {
  Start();
  const auto health = grpc::health::v1::Health::NewStub(channel_);
  HealthCheckRequest request;
  HealthCheckResponse answer;
  for (const char* service : {"sluice.v1.InferenceService", "sluice.v1.SessionService"}) {
    request.set_service(service);
    grpc::ClientContext context;
    ASSERT_TRUE(health->Check(&context, request, &answer).ok());
    EXPECT_EQ(answer.status(), HealthCheckResponse::SERVING);
  }
  request.set_service("no.such.Service");
  grpc::ClientContext check;
  EXPECT_EQ(health->Check(&check, request, &answer).error_code(), grpc::StatusCode::NOT_FOUND);
  grpc::ClientContext watch;
  const auto watching = health->Watch(&watch, request);
  ASSERT_TRUE(watching->Read(&answer));
  EXPECT_EQ(answer.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  watch.TryCancel();
  watching->Finish();
}

TEST_F(ServerTest, SessionsAreUnimplementedWhereThereAreNone) {
  ServerOptions options = TestOptions();
  options.max_sessions = 0;
  Start(options);
  const auto sessions = v1::SessionService::NewStub(channel_);
  grpc::ClientContext get;
  v1::Session session;
  EXPECT_EQ(sessions->GetSession(&get, v1::GetSessionRequest(), &session).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  grpc::ClientContext exporting;
  const auto reader = sessions->ExportSession(&exporting, v1::ExportSessionRequest());
  v1::ExportSessionResponse piece;
  EXPECT_FALSE(reader->Read(&piece));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNIMPLEMENTED);
  grpc::ClientContext importing;
  const auto writer = sessions->ImportSession(&importing, &session);
  writer->WritesDone();
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ServerTest, APortInUseIsSaidSo) {
  Start();
  ServerOptions options = TestOptions();
  options.listen = server_->address();
  absl::StatusOr<std::unique_ptr<Server>> second = Server::Start(options);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().message(),
            "cannot listen on " + server_->address() + ": Address already in use");
  options = TestOptions();
  options.admin_listen = server_->admin_address();
  second = Server::Start(options);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("Address already in use"));
}

TEST_F(ServerTest, AHttpPortThatNobodyAskedForMayBeTaken) {
  ServerOptions options = TestOptions();
  options.http_listen = "127.0.0.1:0";
  Start(options);
  options.http_listen = server_->http_address();
  {
    const absl::StatusOr<std::unique_ptr<Server>> second = Server::Start(options);
    ASSERT_TRUE(second.ok()) << second.status();
    EXPECT_EQ((*second)->http_address(), "") << "it serves without the port";
  }
  options.given = {"http_listen"};
  EXPECT_THAT(std::string(Server::Start(options).status().message()),
              HasSubstr("Address already in use"));
  EXPECT_EQ(ServerOptions().http_listen, "127.0.0.1:8080");
}

TEST_F(ServerTest, StartRefusesBadInput) {
  ServerOptions options = TestOptions();
  options.model = "/no/such/model";
  EXPECT_FALSE(Server::Start(options).ok());
  options = TestOptions();
  options.listen = "nowhere";
  EXPECT_TRUE(absl::IsInvalidArgument(Server::Start(options).status()));
}

// Every line is a comment or a sample, no series appears twice, and Prometheus' own linter has
// nothing to say but that vLLM's names have colons.
TEST_F(ServerTest, MetricsAreWellFormed) {
  Start();
  ASSERT_TRUE(Generate(Story(5)).status.ok());
  const std::string text = Get("/metrics");
  std::map<std::string, int> series;
  std::string own;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    if (!absl::StrContains(line, "vllm:")) own += std::string(line) + "\n";
    if (line[0] == '#') continue;
    const size_t space = line.rfind(' ');
    ASSERT_NE(space, absl::string_view::npos) << line;
    double value;
    EXPECT_TRUE(absl::SimpleAtod(line.substr(space + 1), &value)) << line;
    EXPECT_EQ(++series[std::string(line.substr(0, space))], 1) << line;
  }
  for (const char* name :
       {"sluice_build_info", "sluice_generated_tokens_total 5", "sluice_inter_token_seconds_bucket",
        "sluice_startup_seconds", "process_resident_memory_bytes", "process_open_fds",
        "process_cpu_seconds_total", "process_start_time_seconds", "vllm:num_requests_waiting",
        "grpc_server_handled_total{grpc_service=\"sluice.v1.InferenceService\",grpc_method="
        "\"Generate\",grpc_code=\"OK\"} 1"}) {
    EXPECT_THAT(text, HasSubstr(name));
  }
  if (std::system("command -v promtool > /dev/null") != 0) GTEST_SKIP() << "no promtool here";
  const std::string path = testing::TempDir() + "/metrics.txt";
  std::ofstream(path) << own;
  EXPECT_EQ(std::system(("promtool check metrics < " + path).c_str()), 0);
}

TEST_F(ServerTest, CompatibleNamesCanBeLeftOut) {
  ServerOptions options = TestOptions();
  options.vllm_metrics = false;
  Start(options);
  EXPECT_EQ(Get("/metrics").find("vllm:"), std::string::npos);
  int status = 0;
  Get("/nothing", &status);
  EXPECT_EQ(status, 404);
}

}  // namespace
}  // namespace sluice
