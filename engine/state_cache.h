// Committed states and where they are: device slots, host memory, files. Internal to engine/.
//
// Each state has a place below the device for as long as anybody points at it: host memory, or a
// file with a store (then host memory is a cache of files, and what is not written yet stays in
// it). Room for a new one is reserved before it is computed; one that will replace a state that
// nobody else needs takes that one's place. A slot holds a copy that can be dropped at any time.
#ifndef SLUICE_ENGINE_STATE_CACHE_H_
#define SLUICE_ENGINE_STATE_CACHE_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/files.h"
#include "engine/host_copies.h"
#include "engine/session_info.h"
#include "engine/slot_pool.h"
#include "engine/state/state_info.h"
#include "engine/stats.h"

namespace sluice {

class StateCache;

// Tenant and id.
using SessionKey = std::pair<std::string, std::string>;

// Bytes of host memory and of disk that nobody else gets. Given back by the destructor.
class Room {
 public:
  Room() = default;
  Room(Room&& other) noexcept { *this = std::move(other); }
  Room& operator=(Room&& other) noexcept;
  ~Room() { Release(); }
  void Release();

 private:
  friend class StateCache;
  StateCache* cache_ = nullptr;
  int64_t host_ = 0;
  int64_t disk_ = 0;
  int64_t lent_ = 0;  // of each, what others have as long as this room is held
};

// A value that never changes; the places that hold it do. Shared by the sessions, calls and exports
// that point at it.
class State {
 public:
  State(StateCache* cache, StateInfo about, int64_t bytes)
      : info(std::move(about)), cache_(cache), bytes_(bytes) {}
  ~State();
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  const StateInfo info;
  std::set<SessionKey> holders;  // sessions whose record on disk points at it
  bool checked = true;           // its file could be read, or it has none yet
  FileStamp file;                // of its file when it was last looked at; number 0: never
  bool exported = false;         // its buffer has been seen outside of the engine's thread
  std::vector<std::function<void(absl::Status)>> on_data;  // wait for data_ready
  bool fetching = false;                                   // a StoreJob reads it, or is to

  Room fetch_room;             // for what it reads
  absl::Duration fetch_asked;  // when it was first wanted

  // Set only for a state that no session has, such as a cached prefix. It drops the state when the
  // host memory that it takes is wanted.
  std::function<void()> drop;

  bool on_device() const { return slot_ >= 0; }
  bool has_data() const { return host_ != nullptr; }  // in host memory, or on the way to it
  bool data_ready() const { return has_data() && read_ == 0; }
  const HostState& data() const { return host_; }
  StateTier tier() const;

 private:
  friend class StateCache;
  friend class Pin;

  StateCache* const cache_;
  const int64_t bytes_;  // in canonical form, which is what it takes on the host and on disk
  int32_t slot_ = -1;
  HostState host_;
  Ticket read_ = 0;  // of the copy into host_, while it is on its way
  absl::Duration read_started_;
  int32_t pins_ = 0;       // who needs host_ to stay
  bool has_disk_ = false;  // a place on disk is its own, whether it is written yet or not
  std::list<State*>::iterator slot_place_;
  std::list<State*>::iterator host_place_;
};
using StatePtr = std::shared_ptr<State>;

// Keeps a state's data in host memory.
class Pin {
 public:
  Pin() = default;
  explicit Pin(StatePtr state);
  Pin(Pin&& other) noexcept : state_(std::move(other.state_)) {}
  Pin& operator=(Pin&& other) noexcept;
  ~Pin() { Release(); }
  void Release();

 private:
  StatePtr state_;
};

struct StateBudget {
  int64_t host_bytes = 0;
  int64_t disk_bytes = 0;
  bool has_store = false;
};

class StateCache {
 public:
  // All outlive the cache, and it outlives every State.
  StateCache(HostCopies* copies, Backend* backend, SlotPool* slots, const Clock* clock,
             const StateBudget& budget, EngineStats* stats);
  ~StateCache();

  // Room for so many bytes of states. RESOURCE_EXHAUSTED when there is none and none can be made.
  absl::Status Reserve(int64_t host_bytes, int64_t disk_bytes, Room* room);
  // Room for a state of `bytes` in the place of another of `old_bytes`, which has none of its own
  // any more once the room is given back. RESOURCE_EXHAUSTED: there is none for what it is larger.
  absl::Status ReserveInPlace(int64_t bytes, int64_t old_bytes, Room* room);
  // Brings the host memory back to its bound, after a room in place was used.
  void Trim() { FitsHost(0); }
  // Sessions known by name alone: each may have a state on disk, of whose bytes those count that
  // every state has.
  void AddUnread(int64_t count) { unread_ += count; }
  // So many states are in the directory, those of other daemons too.
  void CountDirectory(int64_t states) { unread_ = std::max<int64_t>(0, states - on_disk_); }

  // The state in `slot`, which is the cache's from now on; its copy to the host begins. Takes its
  // bytes on the host and on disk of `room`.
  StatePtr AdoptSlot(StateInfo info, int32_t slot, Room* room);
  // The same from host memory; `data` is complete.
  StatePtr AdoptData(StateInfo info, HostState data, Room* room);
  // A copy of the state in `slot`, which stays the caller's: on its way to the host, and in a slot
  // of its own if one can be had. Takes its bytes on the host of `room`, and none on disk: `drop`
  // may be called at any time later to have it gone.
  StatePtr AdoptCopy(StateInfo info, int32_t slot, Room* room, std::function<void()> drop);
  // A state that is on disk.
  StatePtr AdoptFile(StateInfo info);
  // Gives a state the data that was read from its file. Takes its bytes on the host from `room`.
  void GiveData(State* state, HostState data, Room* room);

  // The state's own slot, which is the caller's from now on: no copy. -1: it has none.
  int32_t TakeSlot(State* state);
  // Copies the state, which has a slot, into another.
  void CopyTo(const State& state, int32_t slot);
  // Gives slots back, the least recently used first, until `wanted` are free in the pool or only
  // `keep` has one left. False: not enough.
  bool FreeSlots(int32_t wanted, const State* keep);
  // The same for pages: until `wanted` are free beside those that are `promised`.
  bool FreePages(int64_t wanted, int64_t promised, const State* keep);
  // The state goes on without its slot; its data is ready.
  void LeaveSlot(State* state) { DropSlot(state); }
  // Slots that FreeSlots could give back.
  int32_t slots_held() const { return static_cast<int32_t>(in_slots_.size()); }
  void Touch(State* state);

  // Finishes copies.
  void Poll();
  // Nothing that is on its way to the host will arrive.
  void FailDevice(const absl::Status& status);
  // Nobody will be told of states on their way to the host.
  void DropWaiters();
  bool device_failed() const { return device_failed_; }

  void SetGauges();
  // Bytes of a state in canonical form that has seen `tokens`.
  int64_t BytesAt(int64_t tokens) const { return copies_->table().BytesAt(tokens); }

 private:
  friend class State;
  friend class Room;
  friend class Pin;

  StatePtr MakeState(StateInfo info, bool has_disk);
  void TakeDiskPlace(const State& state, Room* room);
  void HoldSlot(State* state, int32_t slot);
  void StartRead(State* state, int32_t slot, Room* room);
  void Forget(State* state);
  void DropSlot(State* state);
  bool DropOneFromHost();
  absl::Status CheckRoom(int64_t host_bytes, int64_t disk_bytes);
  bool FitsHost(int64_t bytes);
  void DropHost(State* state);
  int64_t disk_used() const {
    return on_disk_bytes_ + unread_ * BytesAt(0) + reserved_disk_ - lent_;
  }
  int64_t host_used() const { return host_bytes_ + reserved_host_ - lent_; }

  HostCopies* const copies_;
  Backend* const backend_;
  SlotPool* const slots_;
  const Clock* const clock_;
  const StateBudget budget_;
  EngineStats* const stats_;
  bool device_failed_ = false;
  int64_t states_ = 0;   // that somebody points at
  int64_t on_disk_ = 0;  // of them, with a place on disk
  int64_t on_disk_bytes_ = 0;
  int64_t host_bytes_ = 0;  // of in_host_
  int64_t unread_ = 0;      // states, each of which may be on disk
  int64_t reserved_host_ = 0;
  int64_t reserved_disk_ = 0;
  int64_t lent_ = 0;            // of the reserved bytes: counted with whoever has them now
  std::list<State*> in_slots_;  // the least recently used first
  std::list<State*> in_host_;
  std::list<State*> reading_;  // on their way from a slot to the host
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_CACHE_H_
