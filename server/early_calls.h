// Bounds the calls of one connection that have begun and not come whole.
//
// gRPC 1.51 enforces its bound on concurrent streams only once the peer has acknowledged it, and
// shows a call to its handler only with the first message. A peer that acknowledges nothing could
// open streams of 15 bytes each that cost 12 KiB. gRPC shows the head of each call to the
// credentials' metadata processor, which refuses here what goes beyond the bound.
#ifndef SLUICE_SERVER_EARLY_CALLS_H_
#define SLUICE_SERVER_EARLY_CALLS_H_

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_context.h>

#include <cstdint>
#include <map>
#include <memory>

#include "engine/stats.h"
#include "server/core/mutex.h"

namespace sluice {

// Any thread. Connections are known by a number that is written into gRPC's context of each.
class EarlyCalls {
 public:
  // What a connection may have begun without a handler.
  explicit EarlyCalls(int32_t limit) : limit_(limit) {}

  // A new connection's number; never 0.
  uint64_t Number();
  // A call's head has come. False: it is to be refused.
  bool Begin(uint64_t connection);
  // A call has come to its handler. This makes up for one more that never did.
  void Arrive(uint64_t connection);
  void Arrive(const grpc::ServerContextBase& context);

  const Counter& refused() const { return refused_; }

 private:
  const int32_t limit_;
  Counter refused_;
  Mutex mutex_;
  uint64_t last_number_ SLUICE_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, int32_t> early_ SLUICE_GUARDED_BY(mutex_);  // by connection; 0 is left out
};

// Credentials for plaintext that count their calls' heads in `calls`, which outlives the server.
std::shared_ptr<grpc::ServerCredentials> PlaintextCredentials(EarlyCalls* calls);
// Has those of TLS count them.
void CountEarlyCalls(EarlyCalls* calls, grpc::ServerCredentials* credentials);

}  // namespace sluice

#endif  // SLUICE_SERVER_EARLY_CALLS_H_
