#include "client/client.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "client/call.h"
#include "client/credentials.h"
#include "client/error.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/support/channel_arguments.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice {
namespace {

// Tokenize answers a message of the daemon's limit (4 MiB) with several bytes for each of its own.
constexpr int kMaxReceiveBytes = 256 << 20;

}  // namespace

Client::Client(const ClientOptions& options) : address_(options.address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (!options.token.empty()) interceptors.push_back(SendToken(options.token));
  channel_ = grpc::experimental::CreateCustomChannelWithInterceptors(
      address_, options.credentials ? options.credentials : grpc::InsecureChannelCredentials(),
      arguments, std::move(interceptors));
}

absl::Status Client::Generate(const v1::GenerateRequest& request, const CallOptions& options,
                              absl::FunctionRef<bool(const v1::GenerateResponse&)> on_event) const {
  Call call(options, request.session_id());
  const auto reader = v1::InferenceService::NewStub(channel_)->Generate(call.context(), request);
  return ReadStream(reader.get(), call.context(), address_, on_event);
}

absl::Status Client::Score(const v1::ScoreRequest& request, const CallOptions& options,
                           absl::FunctionRef<bool(const v1::ScoreResponse&)> on_event) const {
  Call call(options, request.session_id());
  const auto reader = v1::InferenceService::NewStub(channel_)->Score(call.context(), request);
  return ReadStream(reader.get(), call.context(), address_, on_event);
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request,
                                                      const CallOptions& options) const {
  Call call(options);
  v1::TokenizeResponse response;
  absl::Status status = ToAbslStatus(
      v1::InferenceService::NewStub(channel_)->Tokenize(call.context(), request, &response),
      address_);
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request,
                                                          const CallOptions& options) const {
  Call call(options);
  v1::DetokenizeResponse response;
  absl::Status status = ToAbslStatus(
      v1::InferenceService::NewStub(channel_)->Detokenize(call.context(), request, &response),
      address_);
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::Model> Client::GetModel(const v1::GetModelRequest& request,
                                           const CallOptions& options) const {
  Call call(options);
  v1::Model model;
  absl::Status status = ToAbslStatus(
      v1::InferenceService::NewStub(channel_)->GetModel(call.context(), request, &model), address_);
  if (!status.ok()) return status;
  return model;
}

absl::StatusOr<Client::HealthStatus> Client::CheckHealth(const std::string& service,
                                                         const CallOptions& options) const {
  Call call(options);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  absl::Status status = ToAbslStatus(
      grpc::health::v1::Health::NewStub(channel_)->Check(call.context(), request, &response),
      address_);
  if (!status.ok()) return status;
  return response.status();
}

absl::Status Client::WatchHealth(const std::string& service, const CallOptions& options,
                                 absl::FunctionRef<bool(HealthStatus)> on_change) const {
  Call call(options);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  const auto reader = grpc::health::v1::Health::NewStub(channel_)->Watch(call.context(), request);
  return ReadStream(reader.get(), call.context(), address_,
                    [&](const grpc::health::v1::HealthCheckResponse& response) {
                      return on_change(response.status());
                    });
}

std::string FinishReasonName(v1::FinishReason reason) {
  const std::string name = v1::FinishReason_Name(reason);
  return absl::AsciiStrToLower(absl::StripPrefix(name, "FINISH_REASON_"));
}

}  // namespace sluice
