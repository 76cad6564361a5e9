#include "server/connection_call.h"

#include <optional>

#include "server/listener.h"
#include "server/tcp_socket.h"

namespace sluice {

ConnectionCall BeginConnectionCall(Listener* listener, const grpc::ServerContextBase& context) {
  if (listener == nullptr) return {};
  const std::optional<PeerKey> peer = ParseGrpcPeer(context.peer());
  if (!peer.has_value()) return {};
  Connections& connections = listener->connections();
  return {connections.BeginCall(*peer), connections.call_bytes()};
}

}  // namespace sluice
