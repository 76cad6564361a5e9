// What the doors to sessions work with, gRPC's and HTTP's.
#ifndef SLUICE_SERVER_SESSION_PARTS_H_
#define SLUICE_SERVER_SESSION_PARTS_H_

#include "engine/clock.h"
#include "engine/state/state_header.h"
#include "engine/state/state_keys.h"
#include "server/auth.h"
#include "server/call_stats.h"
#include "server/core/device_thread.h"
#include "server/early_calls.h"
#include "server/worker.h"

namespace sluice {

// All of it outlives the doors.
struct SessionParts {
  const Authenticator* auth = nullptr;
  DeviceThread* device = nullptr;
  Worker* answers = nullptr;        // without a bound on what waits
  const StateKeys* keys = nullptr;  // null: nothing is exported or imported
  const StateSpec* spec = nullptr;  // of the model
  CallStats* stats = nullptr;
  const Clock* clock = nullptr;
  Listener* listener = nullptr;       // is told of gRPC's calls; null: nobody is
  EarlyCalls* early_calls = nullptr;  // is told of every call of gRPC's
};

}  // namespace sluice

#endif  // SLUICE_SERVER_SESSION_PARTS_H_
