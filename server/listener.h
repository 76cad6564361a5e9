// The daemon's own accept loop: it survives running out of file descriptors, which gRPC's does not
// (grpc#20418), and bounds connections, which gRPC's cannot.
//
// One descriptor is kept in reserve. When accept finds none left, the reserve is given up for as
// long as it takes to accept the connection and close it: the peer sees an end instead of silence,
// and the queue moves on.
#ifndef SLUICE_SERVER_LISTENER_H_
#define SLUICE_SERVER_LISTENER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/stats.h"
#include "server/address.h"
#include "server/core/mutex.h"

namespace sluice {

struct ListenerOptions {
  int32_t max_connections = 1024;  // open at once; lowered where the process may not have as many
  int32_t max_connections_per_peer = 0;  // from one address; 0: no bound of its own
  // The system ends a connection whose peer has acknowledged nothing of what was sent for so long.
  // gRPC's own ping waits behind what is to be sent, where a lost peer takes none of it, for ever.
  absl::Duration lost_after = absl::InfiniteDuration();
};

struct ListenerStats {
  Counter accepted;
  Counter shed_connections;  // closed at once: max_connections was reached
  Counter shed_peer;         // the same of max_connections_per_peer
  Counter shed_files;        // the process had no descriptor left
};

class Listener {
 public:
  // Binds and listens; nobody is accepted before Start. FAILED_PRECONDITION, naming the address and
  // the system's reason.
  static absl::StatusOr<std::unique_ptr<Listener>> Bind(const Address& address,
                                                        const ListenerOptions& options);
  // Stops.
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // From now on `handle` is given each connection, from a thread of the listener, and owns its
  // descriptor, which does not block. Once.
  void Start(std::function<void(int fd)> handle);
  // No call of `handle` begins afterwards; new connections are refused. One thread.
  void Stop();

  // With the port that was bound, where 0 was asked for.
  const Address& address() const { return address_; }
  int fd() const { return listen_fd_; }
  const ListenerStats& stats() const { return stats_; }
  // Open at once, at most.
  int32_t max_connections() const { return options_.max_connections; }
  // Accepted and not yet closed by whoever owns them. Any thread.
  int64_t open_connections();
  // Ends those: their owners see errors. After Stop; any thread.
  void CutConnections();

 private:
  // An accepted connection, whose descriptor belongs to somebody else: its number may mean another
  // file by now, the socket's cookie never does.
  struct Connection {
    int fd = -1;
    uint64_t cookie = 0;
    std::string peer;  // the address's bytes
  };

  Listener(int listen_fd, int wake_fd, const Address& address, const ListenerOptions& options);

  void Run(const std::function<void(int fd)>& handle);
  // Accepts one. False: nobody waits, or no descriptor could be freed for it.
  bool AcceptOne(const std::function<void(int fd)>& handle);
  // Accepts and closes one with the descriptor kept in reserve. False: somebody else took it.
  bool ShedWithReserve();
  bool HasRoomFor(const std::string& peer);
  bool Full() const SLUICE_REQUIRES(mutex_);
  bool PeerFull(const std::string& peer) const SLUICE_REQUIRES(mutex_);
  void ForgetClosed() SLUICE_REQUIRES(mutex_);

  const int listen_fd_;
  const int wake_fd_;  // an eventfd: Stop was called
  int reserve_fd_;     // of the thread
  const Address address_;
  const ListenerOptions options_;
  ListenerStats stats_;
  Mutex mutex_;
  std::vector<Connection> connections_ SLUICE_GUARDED_BY(mutex_);
  std::thread thread_;
};

// Raises the process's bound on open files to what it may have, and returns it.
int64_t RaiseFileLimit();

}  // namespace sluice

#endif  // SLUICE_SERVER_LISTENER_H_
