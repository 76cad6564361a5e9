#include "kernels/cuda/ticket_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::cuda {

void TicketQueue::Push(uint64_t ticket, cudaStream_t stream, std::function<void()> finish) {
  if (!latch_->ok()) return;
  Event event;
  if (!idle_.empty()) {
    event = std::move(idle_.back());
    idle_.pop_back();
  } else if (!latch_->Check(MakeEvent(&event))) {
    return;
  }
  if (!latch_->Check(cudaEventRecord(event.get(), stream), "recording an event")) return;
  pending_.push_back({ticket, std::move(event), std::move(finish)});
}

std::deque<TicketQueue::Pending>::const_iterator TicketQueue::Find(uint64_t ticket) const {
  return std::lower_bound(pending_.begin(), pending_.end(), ticket,
                          [](const Pending& p, uint64_t value) { return p.ticket < value; });
}

bool TicketQueue::Holds(uint64_t ticket) const {
  const auto at = Find(ticket);
  return at != pending_.end() && at->ticket == ticket;
}

void TicketQueue::Await(uint64_t ticket) {
  auto since = std::chrono::steady_clock::now();
  while (Waits(ticket)) {
    const cudaError_t error = cudaEventQuery(pending_.front().event.get());
    const auto now = std::chrono::steady_clock::now();
    if (error == cudaErrorNotReady) {
      if (now - since < patience_) continue;
      latch_->Check(absl::InternalError(
          absl::StrCat("cuda: the device has done nothing for ", patience_.count(), " s")));
    } else if (latch_->Check(error, "waiting for the device")) {
      FinishFront();
      since = now;
    }
  }
}

bool TicketQueue::Poll(uint64_t ticket) {
  while (Waits(ticket)) {
    const cudaError_t error = cudaEventQuery(pending_.front().event.get());
    if (error == cudaErrorNotReady) return false;
    if (latch_->Check(error, "asking the device")) FinishFront();
  }
  return true;
}

void TicketQueue::FinishFront() {
  Pending front = std::move(pending_.front());
  pending_.pop_front();
  idle_.push_back(std::move(front.event));
  if (front.finish) front.finish();
}

}  // namespace sluice::cuda
