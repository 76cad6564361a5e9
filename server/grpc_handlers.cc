#include "server/grpc_handlers.h"

#include "google/protobuf/descriptor.h"
#include "kernels/check.h"

namespace sluice {

grpc::Status UnparsableMessage() {
  return {
      grpc::StatusCode::INVALID_ARGUMENT,
      "the message cannot be parsed: its bytes are no such message, a string is not UTF-8, or it "
      "is compressed by an encoding that gRPC does not know"};
}

int MethodIndex(const std::string& service, const std::string& method) {
  const google::protobuf::ServiceDescriptor* found =
      google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(service);
  SLUICE_CHECK(found != nullptr && found->FindMethodByName(method) != nullptr);
  return found->FindMethodByName(method)->index();
}

}  // namespace sluice
