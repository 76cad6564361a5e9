// A call's hold on the connection that it came on.
#ifndef SLUICE_SERVER_CONNECTION_CALL_H_
#define SLUICE_SERVER_CONNECTION_CALL_H_

#include <grpcpp/server_context.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "server/connection_use.h"

namespace sluice {

class Listener;

// It is empty if nobody counts the call, for instance because its caller may not call. Copies stand
// for one call.
class ConnectionCall {
 public:
  ConnectionCall() = default;
  // Begins it. Null counts as empty; `bytes` is what the call may have taken of the connection.
  ConnectionCall(std::shared_ptr<ConnectionUse> use, int64_t bytes)
      : use_(std::move(use)), bytes_(bytes) {}

  // Once for all copies.
  void End(bool cancelled) const {
    if (use_ != nullptr) use_->EndCall(bytes_, cancelled);
  }
  // The call took more: a message of a stream.
  void Claim(int64_t bytes) const {
    if (use_ != nullptr) use_->Claim(bytes);
  }

 private:
  std::shared_ptr<ConnectionUse> use_;
  int64_t bytes_ = 0;
};

// The call of `context` on a connection of `listener`, which may be null.
ConnectionCall BeginConnectionCall(Listener* listener, const grpc::ServerContextBase& context);

}  // namespace sluice

#endif  // SLUICE_SERVER_CONNECTION_CALL_H_
