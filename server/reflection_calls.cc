#include "server/reflection_calls.h"

#include <grpcpp/server_context.h>

#include "absl/strings/match.h"
#include "server/connection_call.h"

namespace sluice {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::Interceptor;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;

constexpr char kReflection[] = "/grpc.reflection.";

class ReflectionCall final : public Interceptor {
 public:
  ReflectionCall(Listener* listener, ServerRpcInfo* info) : listener_(listener), info_(info) {}
  ~ReflectionCall() override { call_.End(/*cancelled=*/true); }

  void Intercept(InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      call_ = BeginConnectionCall(listener_, *info_->server_context());
    }
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      call_.End(/*cancelled=*/false);
      call_ = {};
    }
    methods->Proceed();
  }

 private:
  Listener* const listener_;
  ServerRpcInfo* const info_;  // lives as long as the call
  ConnectionCall call_;
};

class ReflectionCalls final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit ReflectionCalls(Listener* listener) : listener_(listener) {}

  // Null: no other call is intercepted.
  Interceptor* CreateServerInterceptor(ServerRpcInfo* info) override {
    if (!absl::StartsWith(info->method(), kReflection)) return nullptr;
    return new ReflectionCall(listener_, info);
  }

 private:
  Listener* const listener_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> ReportReflectionCalls(
    Listener* listener) {
  return std::make_unique<ReflectionCalls>(listener);
}

}  // namespace sluice
