#include "engine/host_copies.h"

#include <utility>

namespace sluice {

HostCopies::~HostCopies() {
  while (AwaitOne()) {
  }
}

HostState HostCopies::Read(int32_t slot, int64_t tokens, Ticket* ticket) {
  const auto bytes = static_cast<size_t>(table_.BytesAt(tokens));
  HostState host;
  if (spare_.empty()) {
    host = std::make_shared<StateData>(bytes);
  } else {
    host = std::move(spare_.back());
    spare_.pop_back();
    // One that is much too large would keep memory that no budget knows of.
    if (host->capacity() > 2 * bytes) *host = StateData();
    host->resize(bytes);
  }
  *ticket = backend_->ReadState(slot, host->data(), tokens);
  in_flight_.push_back({*ticket, host});
  return host;
}

Ticket HostCopies::Write(int32_t slot, const HostState& host, int64_t tokens) {
  const Ticket ticket = backend_->WriteState(slot, host->data(), tokens);
  in_flight_.push_back({ticket, host});
  return ticket;
}

void HostCopies::Poll() {
  for (auto it = in_flight_.begin(); it != in_flight_.end();) {
    if (Done(it->ticket)) {
      Recycle(std::move(it->host));
      it = in_flight_.erase(it);
    } else {
      ++it;
    }
  }
}

bool HostCopies::Done(Ticket ticket) {
  if (!status_.ok() || !backend_->Done(ticket)) return false;
  status_.Update(backend_->Await(ticket));
  return status_.ok();
}

bool HostCopies::AwaitOne() {
  if (in_flight_.empty() || !status_.ok()) return false;
  status_.Update(backend_->Await(in_flight_.front().ticket));
  Recycle(std::move(in_flight_.front().host));
  in_flight_.pop_front();
  return status_.ok();
}

void HostCopies::Recycle(HostState host) {
  const bool mine = host != nullptr && host.use_count() == 1;
  if (mine && spare_.size() < kSpareBuffers) spare_.push_back(std::move(host));
}

}  // namespace sluice
