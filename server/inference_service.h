// sluice.v1.InferenceService: each call is validated, admitted, and handed to the device thread.
#ifndef SLUICE_SERVER_INFERENCE_SERVICE_H_
#define SLUICE_SERVER_INFERENCE_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/request.h"
#include "server/inference_parts.h"
#include "server/validate.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice {

// Its methods run on gRPC's few callback threads: none of them waits.
class InferenceService final : public v1::InferenceService::CallbackService {
 public:
  InferenceService(const InferenceParts& parts, const RequestBounds& bounds, v1::Model model);

  // From now on calls are refused with UNAVAILABLE. Any thread.
  void Drain() { draining_.store(true, std::memory_order_relaxed); }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* message) override;
  grpc::ServerWriteReactor<v1::ScoreResponse>* Score(grpc::CallbackServerContext* context,
                                                     const v1::ScoreRequest* message) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* message,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* message,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* message,
                                     v1::Model* response) override;

 private:
  // Has calls refused whose message cannot be parsed.
  void HandleUnparsable();
  // Makes the reactor of a stream whose request `parse` gives, and starts the request.
  template <typename Converter>
  grpc::ServerWriteReactor<typename Converter::Response>* StartStream(
      grpc::CallbackServerContext* context, Converter converter, CallRecord call, size_t text_bytes,
      std::function<absl::StatusOr<Request>()> parse);
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, Method method,
                                   size_t work_bytes, std::function<absl::Status()> answer);
  // Runs `work` here, or on the worker when there is much of it. False when the worker has too much
  // to do.
  bool Run(size_t bytes, std::function<void()> work);
  absl::Status Admittable() const;
  absl::Duration DeadlineOf(const grpc::CallbackServerContext& context) const;

  const InferenceParts parts_;
  const RequestBounds bounds_;
  const v1::Model model_;
  std::atomic<bool> draining_{false};
};

}  // namespace sluice

#endif  // SLUICE_SERVER_INFERENCE_SERVICE_H_
