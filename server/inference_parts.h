// What the doors to inference work with, gRPC's and HTTP's.
#ifndef SLUICE_SERVER_INFERENCE_PARTS_H_
#define SLUICE_SERVER_INFERENCE_PARTS_H_

#include "engine/clock.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/auth.h"
#include "server/call_stats.h"
#include "server/core/admission.h"
#include "server/core/device_thread.h"
#include "server/core/emitter.h"
#include "server/early_calls.h"
#include "server/worker.h"

namespace sluice {

// All of it outlives the doors.
struct InferenceParts {
  const Authenticator* auth = nullptr;
  const Tokenizer* tokenizer = nullptr;
  Admission* admission = nullptr;
  Emitter* emitter = nullptr;
  DeviceThread* device = nullptr;
  Worker* worker = nullptr;  // encodes large texts
  CallStats* stats = nullptr;
  const Clock* clock = nullptr;
  Listener* listener = nullptr;       // is told of gRPC's calls; null: nobody is
  EarlyCalls* early_calls = nullptr;  // is told of every call of gRPC's
};

}  // namespace sluice

#endif  // SLUICE_SERVER_INFERENCE_PARTS_H_
