// A checkpoint, ready to compute: backend, tokenizer, weights, states and the engine over them.
#ifndef SLUICE_SERVER_MODEL_HOST_H_
#define SLUICE_SERVER_MODEL_HOST_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/clock.h"
#include "engine/engine.h"
#include "engine/model.h"
#include "engine/state/session_store.h"
#include "engine/state/state_header.h"
#include "engine/state/state_keys.h"
#include "engine/tokenizer/tokenizer.h"
#include "kernels/backend.h"
#include "server/options.h"
#include "server/startup_timer.h"
#include "sluice/v1/model.pb.h"

namespace sluice {

// Members are in the order of construction; each outlives what comes after it.
struct ModelHost {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<Model> model;
  StateSpec state_spec;                 // of the model
  StateKeys state_keys;                 // empty: nothing is exported
  std::unique_ptr<SessionStore> store;  // null: sessions end with the daemon
  std::unique_ptr<Engine> engine;
  v1::Model description;  // without limits
  int64_t slot_bytes = 0;
  int32_t slots = 0;
  AttentionRoom attention;  // of a model whose states grow
  int32_t max_batch_tokens = 0;
  std::string why_cpu;  // as Device's
};

// Errors are one line. RESOURCE_EXHAUSTED: not enough memory; anything else: what is wrong with
// flags or files.
absl::StatusOr<ModelHost> LoadModel(const ServerOptions& options, const Clock* clock,
                                    StartupTimer* timer);

// States of `slot_bytes` that `device_state_bytes` (0: the backend's default, as far as
// `budget_bytes` and `max_batch_tokens` allow) gives.
absl::StatusOr<int32_t> CountSlots(int64_t device_state_bytes, int32_t max_batch_tokens,
                                   const BackendInfo& info, int64_t slot_bytes,
                                   int64_t budget_bytes);

// The same for a model whose states grow, in pages of `page_bytes`: half of the memory at most is
// the slots', the rest are pages. `asked_tokens` of a sequence (0: `trained_tokens`, as far as
// there are pages) must fit in them. INVALID_ARGUMENT names the flag.
struct AttentionSizes {
  int32_t slots = 0;
  AttentionRoom room;
};
absl::StatusOr<AttentionSizes> SizeAttention(int64_t device_state_bytes, int64_t asked_tokens,
                                             int64_t trained_tokens, int32_t max_batch_tokens,
                                             const BackendInfo& info, int64_t slot_bytes,
                                             int64_t page_bytes, int64_t budget_bytes);

}  // namespace sluice

#endif  // SLUICE_SERVER_MODEL_HOST_H_
