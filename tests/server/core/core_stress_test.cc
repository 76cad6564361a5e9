// Everything at once, for ThreadSanitizer: clients that leave, stall, fail and read at random, on
// several threads, until a drain. Each stream gets exactly one Finish (FakeTransport checks), and
// nothing is left behind.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/core/drain.h"
#include "server/core/steady_clock.h"
#include "tests/server/core/server_rig.h"

namespace sluice {
namespace {

using Mode = FakeTransport::Mode;

// Runs what it is given in random order, on threads of its own.
class RandomExecutor {
 public:
  RandomExecutor(int threads, uint64_t seed) : rng_(seed) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
  }
  ~RandomExecutor() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void Add(std::function<void()> task) {
    std::lock_guard<std::mutex> lock(mutex_);
    tasks_.push_back(std::move(task));
    changed_.notify_one();
  }

 private:
  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      std::swap(tasks_[rng_() % tasks_.size()], tasks_.back());
      std::function<void()> task = std::move(tasks_.back());
      tasks_.pop_back();
      lock.unlock();
      task();
      task = nullptr;
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::mt19937_64 rng_;
  std::vector<std::function<void()>> tasks_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

enum class Peer { kReads, kReadsLater, kLeaves, kLeavesBeforeSubmit, kFails, kStalls };

// A transport that behaves like its peer. Tasks hold it weakly, as a torn down connection's would.
std::shared_ptr<FakeTransport> MakeTransport(Peer peer, uint64_t moment, RandomExecutor* executor) {
  auto transport =
      std::make_shared<FakeTransport>(peer == Peer::kReads ? Mode::kInline : Mode::kManual);
  const std::weak_ptr<FakeTransport> weak = transport;
  const auto later = [weak, executor](auto what) {
    executor->Add([weak, what] {
      if (const std::shared_ptr<FakeTransport> strong = weak.lock()) what(strong.get());
    });
  };
  auto writes = std::make_shared<std::atomic<uint64_t>>(0);
  transport->set_on_write([peer, moment, later, writes] {
    const bool now = writes->fetch_add(1) == moment;
    if (now && peer == Peer::kStalls) return;
    if (now && peer == Peer::kLeaves) later([](FakeTransport* t) { t->Leave(); });
    const bool ok = !(now && peer == Peer::kFails);
    if (peer != Peer::kReads) later([ok](FakeTransport* t) { t->Complete(ok); });
  });
  // Does what gRPC does with a cancelled call: both reactions, on its own threads, in any order.
  transport->set_on_try_cancel([later] {
    later([](FakeTransport* t) { t->Leave(); });
    later([](FakeTransport* t) { t->Complete(false); });
  });
  return transport;
}

void RunRound(uint64_t seed, bool fault) {
  constexpr int kClients = 4;
  constexpr int kStreamsEach = 50;
  SteadyClock clock;
  StreamLimits limits;
  limits.ring_events = 16;
  limits.write_stall = absl::Milliseconds(40);
  // The rig outlives the transports, which still hold parts of it: it is made first.
  ServerRig rig(limits, &clock, fault ? 300 : -1);
  std::vector<std::weak_ptr<Stream>> streams(kClients * kStreamsEach);
  std::vector<std::shared_ptr<FakeTransport>> transports(kClients * kStreamsEach);
  std::vector<Peer> peers(kClients * kStreamsEach);
  std::atomic<bool> stop_ticking{false};
  {
    RandomExecutor executor(2, seed);
    std::thread ticker([&] {  // so that paused rows lose their patience
      while (!stop_ticking.load()) {
        rig.fake.clock.Advance(absl::Milliseconds(100));
        rig.device->Wake();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
    std::vector<std::thread> clients;
    for (int c = 0; c < kClients; ++c) {
      clients.emplace_back([&, c] {
        std::mt19937_64 rng(seed * 100 + c);
        for (int i = c * kStreamsEach; i < (c + 1) * kStreamsEach; ++i) {
          const Peer peer = peers[i] = static_cast<Peer>(rng() % 6);
          transports[i] = MakeTransport(peer, rng() % 6, &executor);
          Request request = MakeTestRequest(1 + rng() % 60, rng());
          request.n = 1 + static_cast<int32_t>(rng() % 3);
          if (peer == Peer::kLeaves && rng() % 2 == 0) request.stop.max_new_tokens = kEndless;
          std::shared_ptr<Stream> stream = rig.Open(transports[i], request.n);
          streams[i] = stream;
          if (peer == Peer::kLeavesBeforeSubmit) {
            const std::weak_ptr<FakeTransport> weak = transports[i];
            executor.Add([weak] {
              if (const std::shared_ptr<FakeTransport> strong = weak.lock()) strong->Leave();
            });
          }
          rig.device->Submit(std::move(request), std::move(stream));
        }
      });
    }
    for (std::thread& client : clients) client.join();
    Drain drain(
        &rig.admission, rig.device.get(), &rig.emitter,
        {.drain = absl::Milliseconds(seed % 2 == 0 ? 20 : 20'000), .flush = absl::Seconds(30)});
    EXPECT_EQ(drain.Run(), 0);
    stop_ticking = true;
    ticker.join();
  }
  for (size_t i = 0; i < transports.size(); ++i) {
    ASSERT_TRUE(transports[i]->finished()) << i;
    const absl::Status status = transports[i]->WaitForFinish();
    if (!fault && seed % 2 == 1 && peers[i] == Peer::kReads) {
      EXPECT_TRUE(status.ok()) << i << ": " << status;
    }
  }
  EXPECT_EQ(rig.device->device_status().ok(), !fault);
  if (fault) {
    rig.device->Stop();
    EXPECT_EQ(rig.device->live_requests(), 0);
    EXPECT_EQ(rig.admission.permits(), 0);
    EXPECT_EQ(rig.emitter.stats().ring_bytes.load(), 0);
  } else {
    rig.ExpectNothingLeft();
  }
  rig.emitter.Stop();
  transports.clear();
  for (size_t i = 0; i < streams.size(); ++i) EXPECT_TRUE(streams[i].expired()) << i;
}

TEST(CoreStressTest, EveryStreamEndsOnceAndNothingIsLeft) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    RunRound(seed, /*fault=*/false);
  }
}

TEST(CoreStressTest, ADeviceFaultInTheMiddle) { RunRound(5, /*fault=*/true); }

// Cancels from one thread race with submits and closes on others, for one stream at a time.
TEST(CoreStressTest, CancelsRaceWithSubmitAndClose) {
  ServerRig rig;
  std::vector<std::shared_ptr<FakeTransport>> transports;
  for (int i = 0; i < 300; ++i) {
    auto transport = std::make_shared<FakeTransport>(Mode::kInline);
    std::shared_ptr<Stream> stream = rig.Open(transport);
    std::thread leaver([&] {
      for (int spin = 0; spin < i % 10; ++spin) std::this_thread::yield();
      transport->Leave();
    });
    rig.device->Submit(MakeTestRequest(1 + i % 20), std::move(stream));
    leaver.join();
    const absl::Status status = transport->WaitForFinish();
    EXPECT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
  }
  rig.ExpectNothingLeft();
}

}  // namespace
}  // namespace sluice
