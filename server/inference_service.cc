#include "server/inference_service.h"

#include <chrono>
#include <utility>
#include <vector>

#include "server/convert.h"
#include "server/grpc_handlers.h"
#include "server/grpc_stream.h"
#include "server/start_call.h"
#include "server/status.h"
#include "server/trace.h"

namespace sluice {
namespace {

// Encoding more than this takes long enough for other calls to notice.
constexpr size_t kInlineBytes = 64 * 1024;

absl::Status WorkerBusy() {
  return absl::ResourceExhaustedError("too many large texts wait to be encoded");
}

// gRPC keeps a call's message until the call ends, a prompt of a megabyte as well, and gives it as
// const. What it holds is freed here, once nobody reads it any more.
template <class Message>
void Discard(const Message* message) {
  Message().Swap(const_cast<Message*>(message));
}

}  // namespace

InferenceService::InferenceService(const InferenceParts& parts, const RequestBounds& bounds,
                                   v1::Model model)
    : parts_(parts), bounds_(bounds), model_(std::move(model)) {
  HandleUnparsable();
}

void InferenceService::HandleUnparsable() {
  const auto refused = [this](Method method) {
    return [this, method](grpc::CallbackServerContext* context) {
      const CallRecord call{
          .method = method, .started = parts_.clock->Now(), .span = StartSpan(context)};
      parts_.early_calls->Arrive(*context);
      parts_.stats->Done(call, UnparsableMessage().error_code(), parts_.clock->Now());
    };
  };
  const auto handle = [&](const char* name, Method counted_as, auto method) {
    MarkMethodCallback(MethodIndex(v1::InferenceService::service_full_name(), name),
                       NewHandler(this, method, refused(counted_as)));
  };
  handle("Generate", Method::kGenerate, &InferenceService::Generate);
  handle("Score", Method::kScore, &InferenceService::Score);
  handle("Tokenize", Method::kTokenize, &InferenceService::Tokenize);
  handle("Detokenize", Method::kDetokenize, &InferenceService::Detokenize);
  handle("GetModel", Method::kGetModel, &InferenceService::GetModel);
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* message) {
  CallRecord call{.method = Method::kGenerate, .request_id = RequestIdFrom(message->request_id())};
  GenerateConverter converter(call.request_id);
  return StartStream(context, std::move(converter), std::move(call), message->text().size(),
                     [this, message] {
                       absl::StatusOr<Request> request =
                           ParseGenerate(*message, bounds_, *parts_.tokenizer, RandomBits());
                       Discard(message);
                       return request;
                     });
}

grpc::ServerWriteReactor<v1::ScoreResponse>* InferenceService::Score(
    grpc::CallbackServerContext* context, const v1::ScoreRequest* message) {
  CallRecord call{.method = Method::kScore, .request_id = RequestIdFrom("")};
  return StartStream(
      context, ScoreConverter(), std::move(call), message->text().size(), [this, message] {
        absl::StatusOr<Request> request = ParseScore(*message, bounds_, *parts_.tokenizer);
        Discard(message);
        return request;
      });
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* message,
                                                     v1::TokenizeResponse* response) {
  return Answer(context, Method::kTokenize, message->text().size(), [this, message, response] {
    return sluice::Tokenize(*message, bounds_, *parts_.tokenizer, response);
  });
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* message,
                                                       v1::DetokenizeResponse* response) {
  return Answer(context, Method::kDetokenize, message->token_ids_size(), [this, message, response] {
    return sluice::Detokenize(*message, bounds_, *parts_.tokenizer, response);
  });
}

grpc::ServerUnaryReactor* InferenceService::GetModel(grpc::CallbackServerContext* context,
                                                     const v1::GetModelRequest* message,
                                                     v1::Model* response) {
  return Answer(context, Method::kGetModel, 0, [this, message, response] {
    *response = model_;
    return CheckModelName(message->model(), bounds_);
  });
}

template <typename Converter>
grpc::ServerWriteReactor<typename Converter::Response>* InferenceService::StartStream(
    grpc::CallbackServerContext* context, Converter converter, CallRecord call, size_t text_bytes,
    std::function<absl::StatusOr<Request>()> parse) {
  call.started = parts_.clock->Now();
  call.span = StartSpan(context);
  const std::string request_id = call.request_id;
  parts_.early_calls->Arrive(*context);
  absl::StatusOr<TenantRef> tenant = parts_.auth->TenantOf(*context);
  if (tenant.ok()) call.connection = BeginConnectionCall(parts_.listener, *context);
  const std::shared_ptr<GrpcStream<Converter>> reactor = GrpcStream<Converter>::Create(
      context, std::move(converter), std::move(call), parts_.stats, parts_.clock);
  if (!tenant.ok()) {
    reactor->Finish(tenant.status());
    return reactor.get();
  }
  const auto start = [this, reactor, request_id, tenant = *std::move(tenant),
                      parse = std::move(parse), deadline = DeadlineOf(*context)] {
    absl::Status status = Admittable();
    if (!status.ok()) return reactor->Finish(std::move(status));
    absl::StatusOr<Request> request = parse();
    if (!request.ok()) return reactor->Finish(request.status());
    request->request_id = request_id;
    request->deadline = deadline;
    std::vector<Request> requests;
    requests.push_back(*std::move(request));
    status = StartCall(parts_, tenant, std::move(requests),
                       {[&](size_t) { return reactor; },
                        [&](std::vector<std::shared_ptr<Stream>> streams) {
                          reactor->Attach(std::move(streams.front()));
                        },
                        [&](LiveCalls::Place place) { reactor->Hold(std::move(place)); }});
    if (!status.ok()) reactor->Finish(std::move(status));
  };
  if (!Run(text_bytes, start)) reactor->Finish(WorkerBusy());
  return reactor.get();
}

grpc::ServerUnaryReactor* InferenceService::Answer(grpc::CallbackServerContext* context,
                                                   Method method, size_t work_bytes,
                                                   std::function<absl::Status()> answer) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  CallRecord call{.method = method, .started = parts_.clock->Now(), .span = StartSpan(context)};
  parts_.early_calls->Arrive(*context);
  const absl::StatusOr<TenantRef> tenant = parts_.auth->TenantOf(*context);
  if (tenant.ok()) call.connection = BeginConnectionCall(parts_.listener, *context);
  const auto finish = [this, reactor, call](const absl::Status& status) {
    parts_.stats->Done(call, static_cast<grpc::StatusCode>(status.code()), parts_.clock->Now());
    reactor->Finish(ToGrpcStatus(status));
  };
  if (!tenant.ok()) {
    finish(tenant.status());
    return reactor;
  }
  const auto work = [this, finish, answer = std::move(answer)] {
    const absl::Status status = Admittable();
    finish(status.ok() ? answer() : status);
  };
  if (!Run(work_bytes, work)) finish(WorkerBusy());
  return reactor;
}

bool InferenceService::Run(size_t bytes, std::function<void()> work) {
  if (bytes > kInlineBytes) return parts_.worker->Post(std::move(work));
  work();
  return true;
}

absl::Status InferenceService::Admittable() const {
  if (!draining_.load(std::memory_order_relaxed)) return absl::OkStatus();
  return absl::UnavailableError("the daemon is shutting down");
}

absl::Duration InferenceService::DeadlineOf(const grpc::CallbackServerContext& context) const {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteDuration();
  return parts_.clock->Now() + absl::FromChrono(deadline - std::chrono::system_clock::now());
}

}  // namespace sluice
