// The interface that a stream writes through: a gRPC reactor, or a fake in tests.
#ifndef SLUICE_SERVER_CORE_STREAM_TRANSPORT_H_
#define SLUICE_SERVER_CORE_STREAM_TRANSPORT_H_

#include <vector>

#include "absl/status/status.h"
#include "engine/token_sink.h"

namespace sluice {

// All of it is called by the emitter thread alone, with no lock held, so a transport needs none of
// its own. The stream drops its reference once Finish has returned; a gRPC reactor holds another on
// itself until its OnDone.
class StreamTransport {
 public:
  virtual ~StreamTransport() = default;
  // Starts to write `events` (at least one), in order. When all of them are written, or one has
  // failed, the transport calls Stream::OnWriteDone once: from any thread, from within Write too.
  virtual void Write(std::vector<TokenEvent> events) = 0;
  // Exactly once, the last call, never while a write is in flight.
  virtual void Finish(absl::Status status) = 0;
  // Gives up on the peer. A write in flight must then complete (OnWriteDone(false)). Never after
  // Finish.
  virtual void TryCancel() = 0;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_STREAM_TRANSPORT_H_
