#include "kernels/cpu/thread_pool.h"

#include <sched.h>

#include <chrono>

#include "kernels/check.h"
#include "kernels/cpu/flush_denormals.h"

namespace sluice {
namespace {

// Long enough to bridge the serial parts between the loops of one step, short enough to leave the
// core to others between steps.
constexpr std::chrono::microseconds kSpinBeforeSleep(50);
constexpr int kPausesPerClockRead = 64;
// The last task of a loop is nearly done when its waiter has paused this often; if not, its thread
// was preempted.
constexpr int kPausesBeforeYield = 20000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  SLUICE_CHECK(threads >= 1);
  for (int thread = 1; thread < threads; ++thread) {
    workers_.emplace_back([this, thread] { WorkerMain(thread); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    wake_.notify_all();
  }
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Wake() {
  // A sleeper counts itself before it looks at `wakes_` and `claim_` one last time; all in one
  // total order, so either it sees the change or the change's maker sees it.
  wakes_.fetch_add(1);
  if (sleepers_.load() == 0) return;
  std::lock_guard<std::mutex> lock(mutex_);
  wake_.notify_all();
}

void ThreadPool::Run(int64_t tasks, Invoke invoke, const void* context) {
  SLUICE_CHECK(tasks < (int64_t{1} << 31));
  tasks_.store(tasks, std::memory_order_relaxed);
  invoke_.store(invoke, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  finished_.store(0, std::memory_order_relaxed);
  const uint32_t epoch = current_epoch() + 1;
  claim_.store(uint64_t{epoch} << 32 | static_cast<uint64_t>(tasks));
  if (sleepers_.load() != 0) Wake();
  WorkOn(epoch, 0);
  for (int pauses = 0; finished_.load(std::memory_order_acquire) != tasks; ++pauses) {
    if (pauses < kPausesBeforeYield) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::WorkOn(uint32_t epoch, int thread) {
  uint64_t claim = claim_.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(claim >> 32) == epoch) {
    const int64_t unclaimed = static_cast<int64_t>(claim & 0xffffffff);
    if (unclaimed == 0) return;
    // These may already belong to a later loop. Then this one is over, and the exchange below
    // fails.
    const int64_t task = tasks_.load(std::memory_order_relaxed) - unclaimed;
    const Invoke invoke = invoke_.load(std::memory_order_relaxed);
    const void* context = context_.load(std::memory_order_relaxed);
    if (!claim_.compare_exchange_weak(claim, claim - 1, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      continue;
    }
    invoke(context, task, thread);
    finished_.fetch_add(1, std::memory_order_release);
    claim = claim_.load(std::memory_order_acquire);
  }
}

bool ThreadPool::NextLoop(uint32_t* epoch) {
  using Clock = std::chrono::steady_clock;
  const uint32_t wakes = wakes_.load();
  const Clock::time_point give_up = Clock::now() + kSpinBeforeSleep;
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (stop_.load(std::memory_order_relaxed)) return false;
      const uint32_t current = current_epoch();
      if (current != *epoch) {
        *epoch = current;
        return true;
      }
      Pause();
    }
  } while (Clock::now() < give_up);
  std::unique_lock<std::mutex> lock(mutex_);
  sleepers_.fetch_add(1);
  wake_.wait(lock,
             [&] { return stop_.load() || current_epoch() != *epoch || wakes_.load() != wakes; });
  sleepers_.fetch_sub(1);
  return !stop_.load();
}

void ThreadPool::WorkerMain(int thread) {
  const FlushDenormals flush;
  uint32_t epoch = 0;
  while (true) {
    const uint32_t seen = epoch;
    if (!NextLoop(&epoch)) return;
    if (epoch != seen) WorkOn(epoch, thread);
  }
}

int AvailableThreads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  const unsigned threads = std::thread::hardware_concurrency();
  return threads == 0 ? 1 : static_cast<int>(threads);
}

}  // namespace sluice
