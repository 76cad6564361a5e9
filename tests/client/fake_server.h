// A daemon for the client's tests: the real services over a real socket, with answers that a test
// writes down.
#ifndef SLUICE_TESTS_CLIENT_FAKE_SERVER_H_
#define SLUICE_TESTS_CLIENT_FAKE_SERVER_H_

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "sluice/v1/inference.grpc.pb.h"
#include "tests/client/fake_sessions.h"

namespace sluice {

// Events of a Generate stream.
v1::GenerateResponse StartedEvent(int64_t prompt_tokens, uint64_t seed);
v1::GenerateResponse DeltaEvent(int32_t index, absl::string_view text,
                                const std::vector<int32_t>& token_ids = {});
v1::GenerateResponse FinishedEvent(int32_t index, v1::FinishReason reason, int64_t new_tokens);

class FakeServer : public v1::InferenceService::Service, public grpc::health::v1::Health::Service {
 public:
  FakeServer();
  ~FakeServer() override;

  const std::string& address() const { return address_; }

  // The last message each method was asked with. Of the test's thread, when no call runs.
  v1::GenerateRequest generate_request;
  v1::ScoreRequest score_request;
  v1::TokenizeRequest tokenize_request;
  v1::DetokenizeRequest detokenize_request;

  // Metadata x-sluice-affinity of the last Generate.
  std::string generate_affinity;

  // The answers. Generate commits to the session it names. `generate` runs on the server's thread;
  // its default sends generate_events.
  std::vector<v1::GenerateResponse> generate_events;
  std::function<grpc::Status(grpc::ServerWriter<v1::GenerateResponse>*)> generate;
  std::vector<v1::ScoreResponse> score_events;
  v1::TokenizeResponse tokenize_response;
  v1::DetokenizeResponse detokenize_response;
  v1::Model model;
  std::vector<grpc::health::v1::HealthCheckResponse::ServingStatus> health;  // Check: the first
  grpc::Status status;                                                       // of every call
  FakeSessions sessions;

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status Score(grpc::ServerContext*, const v1::ScoreRequest* request,
                     grpc::ServerWriter<v1::ScoreResponse>* writer) override;
  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override;
  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*,
                        v1::Model* response) override;
  grpc::Status Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest*,
                     grpc::health::v1::HealthCheckResponse* response) override;
  grpc::Status Watch(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest*,
                     grpc::ServerWriter<grpc::health::v1::HealthCheckResponse>* writer) override;

 private:
  std::mutex mutex_;  // of generate_request, which concurrent calls write
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CLIENT_FAKE_SERVER_H_
