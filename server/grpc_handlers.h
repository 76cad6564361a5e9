// gRPC's handlers for calls whose message cannot be parsed. gRPC 1.51 answers them UNIMPLEMENTED,
// without a word, before the service sees them; these answer INVALID_ARGUMENT.
#ifndef SLUICE_SERVER_GRPC_HANDLERS_H_
#define SLUICE_SERVER_GRPC_HANDLERS_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <string>
#include <utility>

namespace sluice {

// What such a call ends with.
grpc::Status UnparsableMessage();

// The place of a method among those of its service, by which gRPC knows its handler.
int MethodIndex(const std::string& service, const std::string& method);

// Gives calls to one handler or, if their message cannot be parsed, to another of the same type.
template <typename Handler>
class ParsingHandler final : public grpc::internal::MethodHandler {
 public:
  template <typename Serve, typename Refuse>
  ParsingHandler(Serve serve, Refuse refuse)
      : served_(std::move(serve)), refused_(std::move(refuse)) {}

  void RunHandler(const HandlerParameter& call) override {
    if (call.status.ok() || call.status.error_code() == grpc::StatusCode::CANCELLED) {
      return served_.RunHandler(call);
    }
    refused_.RunHandler(HandlerParameter(call.call, call.server_context, call.request,
                                         grpc::Status::OK, call.internal_data,
                                         call.call_requester));
  }
  void* Deserialize(grpc_call* call, grpc_byte_buffer* bytes, grpc::Status* status,
                    void** data) override {
    const bool came = bytes != nullptr;
    void* const message = served_.Deserialize(call, bytes, status, data);
    // The peer reset the call before its message came, or ended it without one. Such a call must
    // not count as one that arrived (EarlyCalls), and gRPC answers it.
    if (!came) *status = grpc::Status(grpc::StatusCode::CANCELLED, "no message came");
    return message;
  }

 private:
  Handler served_;
  Handler refused_;
};

// Told of each call that is refused.
using OnUnparsable = std::function<void(grpc::CallbackServerContext* context)>;

// Handles calls of one message by a method of `service`, which outlives the server.
template <typename Service, typename Request, typename Response>
grpc::internal::MethodHandler* NewHandler(
    Service* service,
    grpc::ServerUnaryReactor* (Service::*method)(grpc::CallbackServerContext*, const Request*,
                                                 Response*),
    OnUnparsable on_unparsable) {
  const auto serve = [service, method](grpc::CallbackServerContext* context, const Request* request,
                                       Response* response) {
    return (service->*method)(context, request, response);
  };
  const auto refuse = [on_unparsable](grpc::CallbackServerContext* context, const Request*,
                                      Response*) {
    on_unparsable(context);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(UnparsableMessage());
    return reactor;
  };
  return new ParsingHandler<grpc::internal::CallbackUnaryHandler<Request, Response>>(serve, refuse);
}

// The same for a method whose answer is a stream.
template <typename Service, typename Request, typename Response>
grpc::internal::MethodHandler* NewHandler(Service* service,
                                          grpc::ServerWriteReactor<Response>* (Service::*method)(
                                              grpc::CallbackServerContext*, const Request*),
                                          OnUnparsable on_unparsable) {
  class Refused final : public grpc::ServerWriteReactor<Response> {
   public:
    Refused() { this->Finish(UnparsableMessage()); }
    void OnDone() override { delete this; }
  };
  const auto serve = [service, method](grpc::CallbackServerContext* context,
                                       const Request* request) {
    return (service->*method)(context, request);
  };
  const auto refuse = [on_unparsable](grpc::CallbackServerContext* context, const Request*) {
    on_unparsable(context);
    return new Refused();
  };
  return new ParsingHandler<grpc::internal::CallbackServerStreamingHandler<Request, Response>>(
      serve, refuse);
}

}  // namespace sluice

#endif  // SLUICE_SERVER_GRPC_HANDLERS_H_
