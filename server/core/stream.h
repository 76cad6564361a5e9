// One request's way out: from the engine's tokens to the transport's writes.
//
// The discipline, which everything about threads here follows:
//  - The device thread only appends to a bounded ring (Push) and rings a bell once a step; it never
//    calls a transport.
//  - The emitter thread makes every call of the transport, and holds no lock while it does. One
//    write is in flight at most; all events that wait go into the next one, neighbouring deltas
//    merged.
//  - OnWriteDone and OnCancel, on the transport's threads, set a flag and ring a bell; they never
//    write.
//  - Finish exactly once, after the last write completed, on every path. A write that does not
//    complete within the stall bound gets the call cancelled: its request, permit and ring are
//    freed at once, Finish follows the completion.
#ifndef SLUICE_SERVER_CORE_STREAM_H_
#define SLUICE_SERVER_CORE_STREAM_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/token_sink.h"
#include "server/core/admission.h"
#include "server/core/mutex.h"
#include "server/core/stream_transport.h"

namespace sluice {

class DeviceThread;
class Emitter;

class Stream : public TokenSink, public std::enable_shared_from_this<Stream> {
 public:
  // `sequences` is the request's n: the ring is made large enough for its steps. The stream then
  // waits for DeviceThread::Submit, which leads to its Finish. The transport learns of its stream
  // before Submit, and may refer to it until OnDone. Any thread.
  static std::shared_ptr<Stream> Create(std::shared_ptr<StreamTransport> transport,
                                        Emitter* emitter, Permit permit, int32_t sequences);

  // The transport's side: any thread, from within a call of the transport too; never while holding
  // a lock that the transport's methods take. OnCancel: the client left; can come at any time, any
  // number of times.
  void OnWriteDone(bool ok);
  void OnCancel();

  // Ends the call with `status`, which is an error: what waits to be written is dropped, and a
  // write in flight completes first. Nothing happens once the call has ended otherwise. Any thread.
  void End(absl::Status status);

  // TokenSink: the device thread. Nobody is rung: the caller does, once a step (Emitter::Ring).
  int32_t Room() const override;
  void Push(TokenEvent event) override;
  void Close(absl::Status status) override;

 private:
  friend class DeviceThread;  // Bind, unwanted, closed, id_
  friend class Emitter;       // Advance, CancelCall, CancelIfStalled

  Stream(std::shared_ptr<StreamTransport> transport, Emitter* emitter, Permit permit,
         int32_t capacity);

  // From Submit on, the stream's request can be cancelled through `device`, until Close.
  void Bind(DeviceThread* device);
  // True if the request need not begin, because nobody reads or the call was ended.
  bool unwanted() const;
  bool closed() const;

  // The emitter thread's. Advance starts what can be started: a write, or Finish, and is true with
  // the latter.
  bool Advance(absl::Duration now);
  // Cancels the call, once, whatever it does.
  void CancelCall(const char* why);
  // Cancels the call if a write in flight was started at `started` or before. True if it did.
  bool CancelIfStalled(absl::Duration started);

  // Nobody reads any more: drops the events and has the request cancelled. Once.
  void GiveUp(const char* why) SLUICE_REQUIRES(mutex_);
  std::vector<TokenEvent> TakeEvents() SLUICE_REQUIRES(mutex_);
  void DropEvents() SLUICE_REQUIRES(mutex_);
  // True if the emitter has something to do here and must be told (Emitter::Add, unlocked).
  bool MustTellEmitter() SLUICE_REQUIRES(mutex_);

  Emitter* const emitter_;
  const int32_t capacity_;  // events
  uint64_t id_ = 0;         // the engine's RequestId; 0: none. Device thread.

  mutable Mutex mutex_;
  std::shared_ptr<StreamTransport> transport_ SLUICE_GUARDED_BY(mutex_);  // null once finished
  DeviceThread* device_ SLUICE_GUARDED_BY(mutex_) = nullptr;              // from Bind to Close
  Permit permit_ SLUICE_GUARDED_BY(mutex_);
  std::vector<TokenEvent> events_ SLUICE_GUARDED_BY(mutex_);  // the ring: always drained whole
  int64_t event_bytes_ SLUICE_GUARDED_BY(mutex_) = 0;
  absl::Duration write_started_ SLUICE_GUARDED_BY(mutex_);
  absl::Status close_status_ SLUICE_GUARDED_BY(mutex_);
  absl::Status end_status_ SLUICE_GUARDED_BY(mutex_);  // of End; OK until then
  // Room said too little: whoever makes room wakes the device.
  mutable bool starved_ SLUICE_GUARDED_BY(mutex_) = false;
  bool listed_ SLUICE_GUARDED_BY(mutex_) = false;  // on the emitter's list
  bool write_in_flight_ SLUICE_GUARDED_BY(mutex_) = false;
  // Nobody reads: the client left, it stalled, or a write failed.
  bool gave_up_ SLUICE_GUARDED_BY(mutex_) = false;
  bool closed_ SLUICE_GUARDED_BY(mutex_) = false;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_STREAM_H_
