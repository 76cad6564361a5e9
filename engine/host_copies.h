// States on their way between slots and host memory, and the buffers they use. Internal to engine/.
#ifndef SLUICE_ENGINE_HOST_COPIES_H_
#define SLUICE_ENGINE_HOST_COPIES_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/state/state_info.h"
#include "kernels/backend.h"

namespace sluice {

using HostState = std::shared_ptr<StateData>;

// A buffer that a copy reads or writes lives until the copy is done, whatever becomes of whoever
// asked for it.
class HostCopies {
 public:
  // `table` of the model's states. The backend outlives the object.
  HostCopies(Backend* backend, StateTable table) : backend_(backend), table_(std::move(table)) {}
  ~HostCopies();

  // Starts to copy the state in `slot`, which has seen `tokens`, into a new buffer. What is done to
  // the slot next is ordered after; the buffer's content counts from the ticket on.
  HostState Read(int32_t slot, int64_t tokens, Ticket* ticket);
  // Starts to copy `host`, which is complete and has seen `tokens`, into `slot`.
  Ticket Write(int32_t slot, const HostState& host, int64_t tokens);
  // Lets go of copies that are done.
  void Poll();
  // True if the copied data may be used. It never is once the device has failed, because a failed
  // device calls everything done.
  bool Done(Ticket ticket);
  // Blocks until the oldest copy is done. False: there is none, or the device has failed.
  bool AwaitOne();
  // Gives a buffer back that nobody outside the engine has ever seen.
  void Recycle(HostState host);

  // The device's error, if a copy has met it.
  const absl::Status& status() const { return status_; }
  const StateTable& table() const { return table_; }
  bool idle() const { return in_flight_.empty(); }

 private:
  struct Copy {
    Ticket ticket;
    HostState host;
  };
  static constexpr size_t kSpareBuffers = 4;  // faulting fresh pages in costs more than the copy

  Backend* const backend_;
  const StateTable table_;
  absl::Status status_;
  std::list<Copy> in_flight_;
  std::vector<HostState> spare_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_HOST_COPIES_H_
