#include "tests/client/fake_server.h"

#include "absl/strings/str_cat.h"

namespace sluice {

v1::GenerateResponse StartedEvent(int64_t prompt_tokens, uint64_t seed) {
  v1::GenerateResponse event;
  event.mutable_started()->set_request_id("r1");
  event.mutable_started()->set_prompt_tokens(prompt_tokens);
  event.mutable_started()->set_seed(seed);
  return event;
}

v1::GenerateResponse DeltaEvent(int32_t index, absl::string_view text,
                                const std::vector<int32_t>& token_ids) {
  v1::GenerateResponse event;
  event.mutable_delta()->set_index(index);
  event.mutable_delta()->set_text(std::string(text));
  for (const int32_t id : token_ids) event.mutable_delta()->add_token_ids(id);
  return event;
}

v1::GenerateResponse FinishedEvent(int32_t index, v1::FinishReason reason, int64_t new_tokens) {
  v1::GenerateResponse event;
  v1::Finished* finished = event.mutable_finished();
  finished->set_index(index);
  finished->set_reason(reason);
  finished->mutable_usage()->set_new_tokens(new_tokens);
  finished->mutable_timings()->mutable_time_to_first_token()->set_nanos(12'400'000);
  finished->mutable_timings()->mutable_decode()->set_seconds(1);
  return event;
}

FakeServer::FakeServer() {
  generate_events = {StartedEvent(4, 42), DeltaEvent(0, "Hello", {1}),
                     DeltaEvent(0, " there", {2, 3}),
                     FinishedEvent(0, v1::FINISH_REASON_MAX_TOKENS, 3)};
  model.set_name("tiny");
  model.set_device("cpu");
  model.set_vocab_size(100);
  health = {grpc::health::v1::HealthCheckResponse::SERVING};
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(static_cast<v1::InferenceService::Service*>(this));
  builder.RegisterService(&sessions);
  builder.RegisterService(static_cast<grpc::health::v1::Health::Service*>(this));
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeServer::~FakeServer() {
  server_->Shutdown();
  server_->Wait();
}

grpc::Status FakeServer::Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                                  grpc::ServerWriter<v1::GenerateResponse>* writer) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    generate_request = *request;
    generate_affinity = AffinityOf(*context);
  }
  if (generate) return generate(writer);
  for (v1::GenerateResponse event : generate_events) {
    const bool commits =
        !request->session_id().empty() && request->commit_policy() != v1::COMMIT_POLICY_NEVER;
    if (event.has_finished() && commits && status.ok()) {
      const grpc::Status committed =
          sessions.Commit(*request, event.mutable_finished()->mutable_session());
      if (!committed.ok()) return committed;
    }
    writer->Write(event);
  }
  return status;
}

grpc::Status FakeServer::Score(grpc::ServerContext*, const v1::ScoreRequest* request,
                               grpc::ServerWriter<v1::ScoreResponse>* writer) {
  score_request = *request;
  for (const v1::ScoreResponse& event : score_events) writer->Write(event);
  return status;
}

grpc::Status FakeServer::Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                                  v1::TokenizeResponse* response) {
  tokenize_request = *request;
  *response = tokenize_response;
  return status;
}

grpc::Status FakeServer::Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                                    v1::DetokenizeResponse* response) {
  detokenize_request = *request;
  *response = detokenize_response;
  return status;
}

grpc::Status FakeServer::GetModel(grpc::ServerContext*, const v1::GetModelRequest*,
                                  v1::Model* response) {
  *response = model;
  return status;
}

grpc::Status FakeServer::Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest*,
                               grpc::health::v1::HealthCheckResponse* response) {
  response->set_status(health.front());
  return status;
}

grpc::Status FakeServer::Watch(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest*,
                               grpc::ServerWriter<grpc::health::v1::HealthCheckResponse>* writer) {
  for (const auto serving_status : health) {
    grpc::health::v1::HealthCheckResponse response;
    response.set_status(serving_status);
    writer->Write(response);
  }
  return status;
}

}  // namespace sluice
