// Records how the peer of one open connection uses it: calls report here, and the listener decides
// by it which connections to close.
#ifndef SLUICE_SERVER_CONNECTION_USE_H_
#define SLUICE_SERVER_CONNECTION_USE_H_

#include <atomic>
#include <cstdint>

namespace sluice {

// Any thread.
class ConnectionUse {
 public:
  // A call has come whole, from somebody who may call. What is sent for it is at most `bytes`.
  void BeginCall(int64_t bytes) {
    calls_in_flight_.fetch_add(1, std::memory_order_relaxed);
    Claim(bytes);
  }
  // A call that its own client ended counts for nothing.
  void EndCall(int64_t bytes, bool cancelled) {
    if (cancelled) {
      Claim(-bytes);
    } else {
      finished_a_call_.store(true, std::memory_order_relaxed);
    }
    calls_in_flight_.fetch_sub(1, std::memory_order_relaxed);
  }
  // So many bytes of the connection were for a call.
  void Claim(int64_t bytes) { claimed_bytes_.fetch_add(bytes, std::memory_order_relaxed); }

  bool has_call() const { return calls_in_flight_.load(std::memory_order_relaxed) > 0; }
  bool finished_a_call() const { return finished_a_call_.load(std::memory_order_relaxed); }
  int64_t claimed_bytes() const { return claimed_bytes_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> calls_in_flight_{0};
  std::atomic<int64_t> claimed_bytes_{0};
  std::atomic<bool> finished_a_call_{false};
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CONNECTION_USE_H_
