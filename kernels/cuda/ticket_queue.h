// Tickets of work that ends in the order it was enqueued: an event each, and what is to be done on
// the host once it has passed.
#ifndef SLUICE_KERNELS_CUDA_TICKET_QUEUE_H_
#define SLUICE_KERNELS_CUDA_TICKET_QUEUE_H_

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "kernels/cuda/fault_latch.h"
#include "kernels/cuda/stream.h"

namespace sluice::cuda {

class TicketQueue {
 public:
  // A device on which nothing is done for `patience` while it is waited for has hung: a fault.
  TicketQueue(FaultLatch* latch, std::chrono::seconds patience)
      : latch_(latch), patience_(patience) {}

  // `ticket` is done once what `stream` holds now is; then `finish`, on the thread that waits or
  // asks. Tickets grow. Does nothing after a fault.
  void Push(uint64_t ticket, cudaStream_t stream, std::function<void()> finish);

  // True if `ticket` was pushed here and has not been finished.
  bool Holds(uint64_t ticket) const;
  // The event of a ticket that Holds() is true for.
  cudaEvent_t event(uint64_t ticket) const { return Find(ticket)->event.get(); }

  // Finishes everything up to `ticket`: by waiting, or as far as it is done. The latter is false
  // while something is left and no fault has latched.
  void Await(uint64_t ticket);
  bool Poll(uint64_t ticket);

 private:
  struct Pending {
    uint64_t ticket;
    Event event;
    std::function<void()> finish;
  };
  bool Waits(uint64_t ticket) const {
    return latch_->ok() && !pending_.empty() && pending_.front().ticket <= ticket;
  }
  std::deque<Pending>::const_iterator Find(uint64_t ticket) const;
  void FinishFront();

  FaultLatch* const latch_;
  const std::chrono::seconds patience_;
  std::deque<Pending> pending_;
  std::vector<Event> idle_;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_TICKET_QUEUE_H_
