// The setup of an engine's sessions: bounds, the model's and the backend's names, the store.
#ifndef SLUICE_ENGINE_SESSIONS_SESSION_SETUP_H_
#define SLUICE_ENGINE_SESSIONS_SESSION_SETUP_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/state/session_store.h"
#include "engine/state_cache.h"
#include "engine/stats.h"

namespace sluice {

struct SessionLimits {
  int64_t max_sessions = 100000;
  int64_t max_sessions_per_tenant = 100000;
  absl::Duration default_ttl = absl::Hours(1);
  int64_t host_state_bytes = int64_t{1} << 30;
  int64_t disk_state_bytes = int64_t{16} << 30;  // counts with a store only
};

// Called exactly once, on the engine's thread, from within the call or later.
template <typename T>
using Done = std::function<void(absl::StatusOr<T>)>;

struct SessionsSetup {
  SessionLimits limits;
  std::string fingerprint;  // of the model
  std::string numerics_id;  // of the backend
  int64_t vocab = 0;
  bool has_store = false;
  bool shared = false;  // other daemons use the store's directory too
  // Records whose last use is older were written by a version that did not keep it.
  absl::Time last_uses_since = absl::InfinitePast();
  std::function<void(const std::string&)> on_wrong_clock;  // one line; null: nobody is told
  std::vector<SessionName> index;                          // what the store had at the start
  std::function<uint64_t()> random;                        // null: the system's
};

// The parts that all of Sessions uses. Everything outlives them.
struct SessionContext {
  StateCache* states;
  const Clock* clock;
  EngineStats* stats;
  const SessionsSetup* setup;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_SESSION_SETUP_H_
