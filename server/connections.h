// Keeps the open connections, and closes some to make room or to end a flood.
//
// Their descriptors belong to somebody else. A connection that no call has ever finished on is the
// first to go; one with a call in flight never goes for the room.
#ifndef SLUICE_SERVER_CONNECTIONS_H_
#define SLUICE_SERVER_CONNECTIONS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "engine/stats.h"
#include "server/connection_use.h"
#include "server/core/mutex.h"
#include "server/tcp_socket.h"

namespace sluice {

struct ConnectionBounds {
  int32_t max_connections = 1024;        // open at once
  int32_t max_connections_per_peer = 0;  // from one address; 0: no bound of its own
  // The owner reports calls by BeginCall: above three quarters of max_connections, the oldest
  // without a finished call are closed.
  bool calls_are_reported = false;
  // Bytes that a peer may send beyond its calls, if calls_are_reported; 0 means no limit.
  int64_t max_unclaimed_bytes = 0;
  int64_t max_call_bytes = 0;  // what one call may take: a message and its metadata
};

struct ConnectionStats {
  Counter shed_connections;   // refused: max_connections was reached
  Counter shed_peer;          // refused: max_connections_per_peer was
  Counter evicted_no_call;    // closed to make room
  Counter evicted_unclaimed;  // closed for max_unclaimed_bytes
};

// Times are the daemon's clock.
class Connections {
 public:
  explicit Connections(const ConnectionBounds& bounds) : bounds_(bounds) {}

  // True if another connection from there may be added; closes others where it must.
  bool MakeRoomFor(const PeerKey& peer, absl::Duration now);
  void Add(int fd, const PeerKey& peer, absl::Duration now);

  // The connection of `peer`, on which a call has begun; its EndCall is due, with call_bytes().
  // Null when the peer is unknown. Any thread.
  std::shared_ptr<ConnectionUse> BeginCall(const PeerKey& peer);
  int64_t call_bytes() const { return bounds_.max_call_bytes; }

  // Closes the connections that break the bounds. Call it again within the time that it returns.
  absl::Duration Look(absl::Duration now);

  // Connections that were added and that their owners have not closed yet. Any thread.
  int64_t open();
  // Ends them all: their owners see errors. Any thread.
  void CutAll();
  const ConnectionStats& stats() const { return stats_; }

 private:
  struct Connection {
    int fd = -1;  // may mean another file by now, which the cookie tells
    uint64_t cookie = 0;
    PeerKey peer;
    absl::Duration since;
    std::shared_ptr<ConnectionUse> use;
  };

  int64_t size() const SLUICE_REQUIRES(mutex_) { return static_cast<int64_t>(all_.size()); }
  bool Full() const SLUICE_REQUIRES(mutex_) { return size() >= bounds_.max_connections; }
  bool PeerFull(const PeerKey& peer) const SLUICE_REQUIRES(mutex_);
  void ForgetClosed() SLUICE_REQUIRES(mutex_);
  // Closes the oldest without a finished call and older than `grace`, until there are `wanted` left
  // or no such one.
  void CloseIdle(int64_t wanted, absl::Duration now, absl::Duration grace) SLUICE_REQUIRES(mutex_);
  void CloseFloods(bool everybody) SLUICE_REQUIRES(mutex_);
  bool SendsTooMuch(const Connection& connection) const;
  template <typename Predicate>
  void CloseIf(const Predicate& predicate, Counter* counter) SLUICE_REQUIRES(mutex_);
  void Erase(const Connection& connection) SLUICE_REQUIRES(mutex_);

  const ConnectionBounds bounds_;
  ConnectionStats stats_;
  Mutex mutex_;
  std::vector<Connection> all_ SLUICE_GUARDED_BY(mutex_);  // oldest first
  absl::flat_hash_map<PeerKey, std::shared_ptr<ConnectionUse>> uses_ SLUICE_GUARDED_BY(mutex_);
  absl::Duration everybody_at_ SLUICE_GUARDED_BY(mutex_) = -absl::InfiniteDuration();
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CONNECTIONS_H_
