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
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/stats.h"
#include "server/address.h"
#include "server/connections.h"
#include "server/core/mutex.h"
#include "server/core/steady_clock.h"

namespace sluice {

struct ListenerOptions {
  // max_connections is lowered where the process may not have as many descriptors.
  ConnectionBounds bounds{};
  // The system ends a connection whose peer has acknowledged nothing for this long. gRPC's own ping
  // would wait forever behind the bytes that a lost peer does not take.
  absl::Duration lost_after = absl::InfiniteDuration();
};

struct ListenerStats {
  Counter accepted;
  Counter shed_files;  // closed at once: the process had no descriptor left
};

class Listener {
 public:
  // Binds and listens; nobody is accepted before Start. FAILED_PRECONDITION, naming the address and
  // the system's reason.
  static absl::StatusOr<std::unique_ptr<Listener>> Bind(const Address& address,
                                                        const ListenerOptions& options);
  // Stops, and ends the thread.
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // From now on `handle` is given each connection, from a thread of the listener, and owns its
  // descriptor, which does not block. Once. Throws std::system_error where no thread can be had.
  void Start(std::function<void(int fd)> handle);
  // No call of `handle` begins afterwards; new connections are refused. One thread.
  void Stop();
  // After Stop: what is still open when `after` has passed is ended, and its owners see errors.
  void CutConnectionsIn(absl::Duration after);

  // The address has the port that was bound, also where port 0 was asked for.
  const Address& address() const { return address_; }
  int fd() const { return listen_fd_; }
  const ListenerStats& stats() const { return stats_; }
  // Any thread.
  Connections& connections() { return connections_; }
  // The most connections that may be open at once.
  int32_t max_connections() const { return options_.bounds.max_connections; }

 private:
  Listener(int listen_fd, int wake_fd, const Address& address, const ListenerOptions& options);

  void Run(const std::function<void(int fd)>& handle);
  // Does what was asked for since the last call. False: the thread ends.
  bool DoCommands();
  // Looks at the connections. Returns the time for which the thread may sleep; -1 means forever.
  int LookAround();
  // Accepts one. False: nobody waits, or no descriptor could be freed for it.
  bool AcceptOne(const std::function<void(int fd)>& handle);
  // Accepts and closes one with the descriptor kept in reserve. False: somebody else took it.
  bool ShedWithReserve();
  void Wake();

  const int listen_fd_;
  const int wake_fd_;  // an eventfd: there are commands
  int reserve_fd_;     // of the thread
  const Address address_;
  const ListenerOptions options_;
  const SteadyClock clock_;
  ListenerStats stats_;
  Connections connections_;
  bool accepts_ = true;  // of the thread

  Mutex mutex_;
  CondVar stopped_bell_;
  bool stop_ SLUICE_GUARDED_BY(mutex_) = false;
  bool stopped_ SLUICE_GUARDED_BY(mutex_) = false;
  bool end_ SLUICE_GUARDED_BY(mutex_) = false;
  absl::Duration cut_at_ SLUICE_GUARDED_BY(mutex_) = absl::InfiniteDuration();
  std::thread thread_;
};

// Raises the process's bound on open files to what it may have, and returns it.
int64_t RaiseFileLimit();

}  // namespace sluice

#endif  // SLUICE_SERVER_LISTENER_H_
