// grpc.reflection.v1alpha: the API's descriptors for whoever may call.
//
// gRPC's own plugin asks nobody who they are, and holds a thread for each of its streams.
#ifndef SLUICE_SERVER_REFLECTION_H_
#define SLUICE_SERVER_REFLECTION_H_

#include <grpcpp/grpcpp.h>

#include <string>
#include <vector>

#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "server/auth.h"
#include "server/connection_call.h"
#include "server/early_calls.h"

namespace sluice {

class ReflectionService final
    : public grpc::reflection::v1alpha::ServerReflection::CallbackService {
 public:
  // Null `auth`: everybody may ask. `listener` is told of the calls of those who may call; null:
  // nobody is. `early_calls` is told of all. `services` are the full names that a list gives, its
  // own besides. The parts outlive the service.
  ReflectionService(const Authenticator* auth, EarlyCalls* early_calls, Listener* listener,
                    std::vector<std::string> services);

  // UNAUTHENTICATED or RESOURCE_EXHAUSTED for the stream, as for any other call. A question
  // without an answer gets an error_response, and the stream goes on.
  grpc::ServerBidiReactor<grpc::reflection::v1alpha::ServerReflectionRequest,
                          grpc::reflection::v1alpha::ServerReflectionResponse>*
  ServerReflectionInfo(grpc::CallbackServerContext* context) override;

 private:
  class Stream;

  const Authenticator* const auth_;
  EarlyCalls* const early_calls_;
  Listener* const listener_;
  std::vector<std::string> services_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_REFLECTION_H_
