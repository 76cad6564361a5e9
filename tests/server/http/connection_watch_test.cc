#include "server/http/connection_watch.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>

#include "gtest/gtest.h"
#include "server/core/steady_clock.h"
#include "tests/fakes/fake_clock.h"

namespace sluice {
namespace {

// Both ends of a connection; ours is watched.
struct Pair {
  Pair() { EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0); }
  ~Pair() {
    close(fds[0]);
    CloseTheirs();
  }
  void CloseTheirs() {
    if (fds[1] >= 0) close(fds[1]);
    fds[1] = -1;
  }
  // Whether their end has been told that ours is over, within `ms`.
  bool Ended(int ms) {
    pollfd poll_fd = {fds[1], POLLRDHUP, 0};
    return poll(&poll_fd, 1, ms) == 1;
  }
  int fds[2];
};

class Gone {
 public:
  std::function<void()> callback() {
    return [this] {
      std::lock_guard<std::mutex> lock(mutex_);
      ++count_;
      changed_.notify_all();
    };
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return count_ > 0; });
  }
  int count() {
    std::lock_guard<std::mutex> lock(mutex_);
    return count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

TEST(ConnectionWatchTest, TellsOnceWhenThePeerLeaves) {
  SteadyClock clock;
  Gone gone;
  Pair pair;
  {
    ConnectionWatch watch(&clock, absl::Seconds(60));
    const uint64_t id = watch.Open(pair.fds[0]);
    watch.Serve(id, gone.callback());
    pair.CloseTheirs();
    gone.Wait();
    watch.Close(id);
  }
  EXPECT_EQ(gone.count(), 1);
}

TEST(ConnectionWatchTest, TellsOfAPeerThatHasLeftBefore) {
  SteadyClock clock;
  Gone gone;
  Pair pair;
  ConnectionWatch watch(&clock, absl::Seconds(60));
  const uint64_t id = watch.Open(pair.fds[0]);
  pair.CloseTheirs();
  watch.Serve(id, gone.callback());
  gone.Wait();
  watch.Close(id);
}

TEST(ConnectionWatchTest, SaysNothingBetweenRequests) {
  SteadyClock clock;
  Gone unexpected;
  Gone gone;
  Pair idle;
  Pair busy;
  ConnectionWatch watch(&clock, absl::Seconds(60));
  const uint64_t first = watch.Open(idle.fds[0]);
  watch.Serve(first, unexpected.callback());
  watch.Await(first);
  idle.CloseTheirs();
  const uint64_t second = watch.Open(busy.fds[0]);
  watch.Serve(second, gone.callback());
  busy.CloseTheirs();
  gone.Wait();  // by when the first would have been told
  EXPECT_EQ(unexpected.count(), 0);
  watch.Close(first);
  watch.Close(second);
}

TEST(ConnectionWatchTest, CutsARequestThatDoesNotCome) {
  FakeClock clock;
  Pair late;
  Pair served;
  ConnectionWatch watch(&clock, absl::Seconds(60));
  const uint64_t first = watch.Open(late.fds[0]);
  const uint64_t second = watch.Open(served.fds[0]);
  watch.Serve(second, [] {});
  clock.Advance(absl::Seconds(61));
  EXPECT_TRUE(late.Ended(10000));
  EXPECT_FALSE(served.Ended(0)) << "its answer may take as long as it takes";
  watch.Close(first);
  watch.Close(second);
}

TEST(ConnectionWatchTest, CutsOnRequest) {
  SteadyClock clock;
  Pair pair;
  ConnectionWatch watch(&clock, absl::Seconds(60));
  const uint64_t id = watch.Open(pair.fds[0]);
  watch.Cut(id + 1);  // of no connection
  EXPECT_FALSE(pair.Ended(0));
  watch.Cut(id);
  EXPECT_TRUE(pair.Ended(10000));
  watch.Close(id);
}

}  // namespace
}  // namespace sluice
