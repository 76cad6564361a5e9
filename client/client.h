// The C++ client of sluiced.
//
//   sluice::Client client({.address = "127.0.0.1:50051"});
//   sluice::v1::GenerateRequest request;
//   request.set_text("Once upon a time");
//   absl::Status status = client.Generate(request, {}, [](const sluice::v1::GenerateResponse&
//   event) {
//     std::cout << event.delta().text() << std::flush;
//     return true;  // false: enough
//   });
//
// Calls block their thread until the daemon's last word. A failed call's message is one line that
// says what to do (client/error.h). A client may be shared by threads.
#ifndef SLUICE_CLIENT_CLIENT_H_
#define SLUICE_CLIENT_CLIENT_H_

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/cancellation.h"
#include "grpc/health/v1/health.pb.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/security/credentials.h"
#include "sluice/v1/generate.pb.h"
#include "sluice/v1/model.pb.h"
#include "sluice/v1/score.pb.h"
#include "sluice/v1/tokens.pb.h"

namespace sluice {

struct ClientOptions {
  std::string address = "127.0.0.1:50051";
  // Null: plain text. client/credentials.h makes others.
  std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr;
  std::string token{};  // goes with every call of the channel; empty: none
};

struct CallOptions {
  absl::Duration timeout = absl::InfiniteDuration();  // becomes the gRPC deadline
  Cancellation* cancellation = nullptr;               // ends the call with CANCELLED
  // The affinity of the session that the call names, so that a proxy finds its daemon. Default: the
  // session's id, which it is unless the session was forked, or made with another.
  std::string affinity = "";
  // The W3C trace context that the call belongs to; the daemon logs it. An invalid one is not sent.
  std::string traceparent = "";
};

class Client {
 public:
  using HealthStatus = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // Connects at the first call.
  explicit Client(const ClientOptions& options);

  // Calls on_event for each message, in order, on the calling thread. When it returns false, the
  // call is cancelled and OK returned: the caller has what it wanted.
  absl::Status Generate(const v1::GenerateRequest& request, const CallOptions& call,
                        absl::FunctionRef<bool(const v1::GenerateResponse&)> on_event) const;
  absl::Status Score(const v1::ScoreRequest& request, const CallOptions& call,
                     absl::FunctionRef<bool(const v1::ScoreResponse&)> on_event) const;

  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                                const CallOptions& call) const;
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                    const CallOptions& call) const;
  absl::StatusOr<v1::Model> GetModel(const v1::GetModelRequest& request,
                                     const CallOptions& call) const;

  // grpc.health.v1. Service "": the daemon as a whole. NOT_FOUND for one it does not have.
  absl::StatusOr<HealthStatus> CheckHealth(const std::string& service,
                                           const CallOptions& call) const;
  // Calls on_change with the present status and then at every change, until it returns false.
  absl::Status WatchHealth(const std::string& service, const CallOptions& call,
                           absl::FunctionRef<bool(HealthStatus)> on_change) const;

  // For stubs of one's own.
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  const std::string& address() const { return address_; }

 private:
  std::string address_;
  std::shared_ptr<grpc::Channel> channel_;
};

// The name without its prefix, in lower case: "max_tokens".
std::string FinishReasonName(v1::FinishReason reason);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLIENT_H_
