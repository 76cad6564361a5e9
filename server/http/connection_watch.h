// What libmicrohttpd does not see of a connection: that its peer left while an answer is made, and
// that a request never comes to its end.
//
// libmicrohttpd neither reads nor polls a connection that is suspended, which is where a request
// spends its life here, and its timeout starts anew with each byte. So each connection has a bound
// for a whole request to come, from its first byte or the end of the one before; and while a
// request is served, the socket is watched for the peer's end. A peer that shuts down its writing
// side alone counts as gone: no HTTP client waits for an answer like that.
#ifndef SLUICE_SERVER_HTTP_CONNECTION_WATCH_H_
#define SLUICE_SERVER_HTTP_CONNECTION_WATCH_H_

#include <cstdint>
#include <functional>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "server/core/mutex.h"

namespace sluice {

// Any thread. Whoever owns a descriptor closes it after Close alone.
class ConnectionWatch {
 public:
  // Starts a thread. `request_bound`: for a whole request to come.
  ConnectionWatch(const Clock* clock, absl::Duration request_bound);
  ~ConnectionWatch();
  ConnectionWatch(const ConnectionWatch&) = delete;
  ConnectionWatch& operator=(const ConnectionWatch&) = delete;

  // A connection, which waits for a request; an id that names it and never another.
  uint64_t Open(int fd);
  // Its request has come whole. `on_gone` is called once, from the thread, when the peer leaves
  // before Await.
  void Serve(uint64_t id, std::function<void()> on_gone);
  // The answer is out: it waits for the next request.
  void Await(uint64_t id);
  void Close(uint64_t id);
  // Ends the connection, both ways, as the peer would: its owner sees it and closes it.
  void Cut(uint64_t id);

 private:
  struct Connection {
    int fd = -1;
    absl::Duration since;  // the last request's end
    bool serving = false;
    std::function<void()> on_gone{};
  };

  void Run();
  void TellGone(uint64_t id);
  void CutLate(absl::Duration now);

  const Clock* const clock_;
  const absl::Duration request_bound_;
  const int epoll_fd_;
  const int wake_fd_;
  Mutex mutex_;
  uint64_t last_id_ SLUICE_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<uint64_t, Connection> connections_ SLUICE_GUARDED_BY(mutex_);
  std::thread thread_;  // last: starts when all else is there
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_CONNECTION_WATCH_H_
