// A pool for loops of a few microseconds: the calling thread takes part, tasks are claimed one by
// one, and no loop ever waits for a thread that has not begun a task. Which thread runs a task
// never changes a result.
#ifndef SLUICE_KERNELS_CPU_THREAD_POOL_H_
#define SLUICE_KERNELS_CPU_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace sluice {

// One thread drives a pool.
class ThreadPool {
 public:
  // `threads` in all, the driving one included; at least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Wakes sleeping workers ahead of the loops that are about to come.
  void Wake();

  // Calls body(task, thread) for every task in [0, tasks), thread in [0, threads()); returns when
  // all are done. `body` must not throw. At most 2^31 - 1 tasks.
  template <class Body>
  void ParallelFor(int64_t tasks, const Body& body) {
    if (tasks <= 1 || workers_.empty()) {
      for (int64_t task = 0; task < tasks; ++task) body(task, 0);
      return;
    }
    Run(
        tasks,
        [](const void* context, int64_t task, int thread) {
          (*static_cast<const Body*>(context))(task, thread);
        },
        &body);
  }

 private:
  using Invoke = void (*)(const void* context, int64_t task, int thread);

  void Run(int64_t tasks, Invoke invoke, const void* context);
  void WorkerMain(int thread);
  // Runs tasks of loop `epoch` until none is left to claim.
  void WorkOn(uint32_t epoch, int thread);
  // Waits for a loop other than `epoch`; returns its number. False: the pool is being destroyed.
  bool NextLoop(uint32_t* epoch);
  uint32_t current_epoch() const { return static_cast<uint32_t>(claim_.load() >> 32); }

  // Number of the loop in the upper half, tasks not yet claimed in the lower: one compare-and-swap
  // claims a task of this loop and no other, so a worker that comes late finds nothing rather than
  // someone else's task.
  std::atomic<uint64_t> claim_{0};
  std::atomic<int64_t> tasks_{0};
  std::atomic<Invoke> invoke_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<int64_t> finished_{0};

  std::atomic<int> sleepers_{0};
  std::atomic<uint32_t> wakes_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // only for sleeping
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

// Hardware threads that this process may run on.
int AvailableThreads();

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_THREAD_POOL_H_
