#include "engine/state_cache.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace sluice {

State::~State() { cache_->Forget(this); }

StateTier State::tier() const {
  if (on_device()) return StateTier::kDevice;
  return has_data() ? StateTier::kHost : StateTier::kDisk;
}

Room& Room::operator=(Room&& other) noexcept {
  Release();
  cache_ = std::exchange(other.cache_, nullptr);
  host_ = std::exchange(other.host_, 0);
  disk_ = std::exchange(other.disk_, 0);
  lent_ = std::exchange(other.lent_, 0);
  return *this;
}

void Room::Release() {
  if (cache_ == nullptr) return;
  cache_->reserved_host_ -= std::exchange(host_, 0);
  cache_->reserved_disk_ -= std::exchange(disk_, 0);
  cache_->lent_ -= std::exchange(lent_, 0);
}

Pin::Pin(StatePtr state) : state_(std::move(state)) {
  if (state_ != nullptr) ++state_->pins_;
}

Pin& Pin::operator=(Pin&& other) noexcept {
  Release();
  state_ = std::move(other.state_);
  return *this;
}

void Pin::Release() {
  if (state_ != nullptr) --state_->pins_;
  state_.reset();
}

StateCache::StateCache(HostCopies* copies, Backend* backend, SlotPool* slots, const Clock* clock,
                       const StateBudget& budget, EngineStats* stats)
    : copies_(copies),
      backend_(backend),
      slots_(slots),
      clock_(clock),
      budget_(budget),
      stats_(stats) {}

StateCache::~StateCache() { SLUICE_CHECK(states_ == 0); }

// ---- Room ----

absl::Status StateCache::CheckRoom(int64_t host_bytes, int64_t disk_bytes) {
  if (disk_bytes > 0 && disk_used() + disk_bytes > budget_.disk_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("no room for another state on disk: all ",
                                                     budget_.disk_bytes,
                                                     " bytes are taken (--disk_state_bytes)"));
  }
  if (!FitsHost(host_bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat("no room for another state in memory: all ",
                                                     budget_.host_bytes,
                                                     " bytes are taken (--host_state_bytes)"));
  }
  return absl::OkStatus();
}

absl::Status StateCache::Reserve(int64_t host, int64_t disk_bytes, Room* room) {
  const int64_t disk = budget_.has_store ? disk_bytes : 0;
  const absl::Status status = CheckRoom(host, disk);
  if (!status.ok()) return status;
  room->Release();
  room->cache_ = this;
  room->host_ = host;
  room->disk_ = disk;
  reserved_host_ += host;
  reserved_disk_ += disk;
  return absl::OkStatus();
}

absl::Status StateCache::ReserveInPlace(int64_t bytes, int64_t old_bytes, Room* room) {
  const int64_t lent = std::min(bytes, old_bytes);
  if (bytes > lent) {
    const absl::Status status = CheckRoom(bytes - lent, budget_.has_store ? bytes - lent : 0);
    if (!status.ok()) return status;
  }
  room->Release();
  room->cache_ = this;
  room->host_ = room->disk_ = bytes;
  room->lent_ = lent;
  reserved_host_ += bytes;
  reserved_disk_ += bytes;
  lent_ += lent;
  return absl::OkStatus();
}

bool StateCache::FitsHost(int64_t bytes) {
  while (host_used() + bytes > budget_.host_bytes) {
    if (!DropOneFromHost()) return bytes == 0;
  }
  return true;
}

// Takes a state's data, which it has, from the host.
void StateCache::DropHost(State* state) {
  in_host_.erase(state->host_place_);
  host_bytes_ -= state->bytes_;
  copies_->Recycle(state->exported ? nullptr : std::move(state->host_));
  state->host_.reset();
}

bool StateCache::DropOneFromHost() {
  for (State* state : in_host_) {
    if (state->drop != nullptr) {
      const std::function<void()> drop = std::exchange(state->drop, nullptr);
      drop();  // the state is no more, unless a call is about to go on from it
      return true;
    }
    if (state->holders.empty() || state->pins_ > 0 || !state->data_ready()) continue;
    DropSlot(state);
    DropHost(state);
    stats_->host_evictions.Add();
    return true;
  }
  return false;
}

// ---- Values ----

StatePtr StateCache::AdoptSlot(StateInfo info, int32_t slot, Room* room) {
  StatePtr state = MakeState(std::move(info), /*has_disk=*/true);
  TakeDiskPlace(*state, room);
  HoldSlot(state.get(), slot);
  StartRead(state.get(), slot, room);
  return state;
}

StatePtr StateCache::AdoptCopy(StateInfo info, int32_t slot, Room* room,
                               std::function<void()> drop) {
  StatePtr state = MakeState(std::move(info), /*has_disk=*/false);
  state->drop = std::move(drop);
  // Whoever works in `slot` would have to wait for a copy that reads it.
  if (FreeSlots(1, nullptr)) {
    HoldSlot(state.get(), slots_->Take());
    backend_->CopyState(slot, state->slot_);
  }
  StartRead(state.get(), state->slot_ >= 0 ? state->slot_ : slot, room);
  return state;
}

StatePtr StateCache::AdoptData(StateInfo info, HostState data, Room* room) {
  StatePtr state = MakeState(std::move(info), /*has_disk=*/true);
  TakeDiskPlace(*state, room);
  GiveData(state.get(), std::move(data), room);
  return state;
}

StatePtr StateCache::AdoptFile(StateInfo info) {
  StatePtr state = MakeState(std::move(info), /*has_disk=*/true);
  state->checked = false;
  return state;
}

StatePtr StateCache::MakeState(StateInfo info, bool has_disk) {
  const int64_t bytes = BytesAt(info.seen());
  auto state = std::make_shared<State>(this, std::move(info), bytes);
  state->has_disk_ = has_disk;
  ++states_;
  if (has_disk) {
    ++on_disk_;
    on_disk_bytes_ += state->bytes_;
  }
  return state;
}

void StateCache::TakeDiskPlace(const State& state, Room* room) {
  if (!budget_.has_store) return;
  room->disk_ -= state.bytes_;
  reserved_disk_ -= state.bytes_;
}

void StateCache::HoldSlot(State* state, int32_t slot) {
  state->slot_ = slot;
  state->slot_place_ = in_slots_.insert(in_slots_.end(), state);
}

void StateCache::StartRead(State* state, int32_t slot, Room* room) {
  Ticket ticket = 0;
  HostState host = copies_->Read(slot, state->info.seen(), &ticket);
  GiveData(state, std::move(host), room);
  state->read_ = ticket;
  state->read_started_ = clock_->Now();
  reading_.push_back(state);
}

void StateCache::GiveData(State* state, HostState data, Room* room) {
  SLUICE_CHECK(room->host_ >= state->bytes_ && !state->has_data());
  room->host_ -= state->bytes_;
  reserved_host_ -= state->bytes_;
  host_bytes_ += state->bytes_;
  state->host_ = std::move(data);
  state->host_place_ = in_host_.insert(in_host_.end(), state);
}

void StateCache::Forget(State* state) {
  --states_;
  if (state->has_disk_) {
    --on_disk_;
    on_disk_bytes_ -= state->bytes_;
  }
  if (state->slot_ >= 0) DropSlot(state);
  if (state->read_ != 0) reading_.remove(state);
  if (state->host_ != nullptr) DropHost(state);
}

void StateCache::Touch(State* state) {
  if (state->slot_ >= 0) in_slots_.splice(in_slots_.end(), in_slots_, state->slot_place_);
  if (state->has_data()) in_host_.splice(in_host_.end(), in_host_, state->host_place_);
}

// ---- Slots ----

void StateCache::DropSlot(State* state) {
  if (state->slot_ < 0) return;
  const int32_t slot = TakeSlot(state);
  backend_->DropState(slot);
  slots_->Give(slot);
}

int32_t StateCache::TakeSlot(State* state) {
  if (state->slot_ < 0) return -1;
  in_slots_.erase(state->slot_place_);
  return std::exchange(state->slot_, -1);
}

void StateCache::CopyTo(const State& state, int32_t slot) {
  SLUICE_CHECK(state.slot_ >= 0);
  backend_->CopyState(state.slot_, slot);
}

bool StateCache::FreeSlots(int32_t wanted, const State* keep) {
  auto it = in_slots_.begin();
  while (slots_->free() < wanted && it != in_slots_.end()) {
    State* state = *it++;
    if (state == keep) continue;
    DropSlot(state);
    stats_->slot_evictions.Add();
  }
  return slots_->free() >= wanted;
}

bool StateCache::FreePages(int64_t wanted, int64_t promised, const State* keep) {
  auto it = in_slots_.begin();
  while (backend_->pages().free - promised < wanted && it != in_slots_.end()) {
    State* state = *it++;
    if (state == keep) continue;
    DropSlot(state);
    stats_->slot_evictions.Add();
  }
  return backend_->pages().free - promised >= wanted;
}

// ---- Copies ----

void StateCache::Poll() {
  if (device_failed_) return;
  std::vector<std::function<void(absl::Status)>> ready;
  for (auto it = reading_.begin(); it != reading_.end();) {
    State* state = *it;
    if (!copies_->Done(state->read_)) {
      ++it;
      continue;
    }
    state->read_ = 0;
    stats_->spill_seconds.Observe(absl::ToDoubleSeconds(clock_->Now() - state->read_started_));
    std::move(state->on_data.begin(), state->on_data.end(), std::back_inserter(ready));
    state->on_data.clear();
    it = reading_.erase(it);
  }
  // They may point at other states, or at none any more.
  for (const auto& callback : ready) callback(absl::OkStatus());
}

void StateCache::FailDevice(const absl::Status& status) {
  device_failed_ = true;
  std::vector<std::function<void(absl::Status)>> failed;
  for (State* state : reading_) {
    std::move(state->on_data.begin(), state->on_data.end(), std::back_inserter(failed));
    state->on_data.clear();
  }
  for (const auto& callback : failed) callback(status);
}

void StateCache::DropWaiters() {
  std::vector<std::function<void(absl::Status)>> waiters;  // they may hold the states
  for (State* state : reading_) {
    std::move(state->on_data.begin(), state->on_data.end(), std::back_inserter(waiters));
    state->on_data.clear();
  }
}

void StateCache::SetGauges() {
  stats_->device_states.Set(static_cast<int64_t>(in_slots_.size()));
  stats_->host_states.Set(static_cast<int64_t>(in_host_.size()));
  stats_->disk_states.Set(budget_.has_store ? on_disk_ + unread_ : 0);
  stats_->host_state_bytes.Set(host_bytes_);
  stats_->disk_state_bytes.Set(budget_.has_store ? on_disk_bytes_ + unread_ * BytesAt(0) : 0);
}

}  // namespace sluice
