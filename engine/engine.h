// Continuous batching over one backend: takes requests, forms steps, hands out tokens.
//
// It has no threads and is driven: Submit, Cancel and Step are called by one thread
// (server/core/device_thread). stats() may be read by any thread. A request's tokens and
// log-probabilities depend on the request alone, never on the others in flight (kernels/backend.h
// says what that rests on).
#ifndef SLUICE_ENGINE_ENGINE_H_
#define SLUICE_ENGINE_ENGINE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/batch.h"
#include "engine/batch_builder.h"
#include "engine/call.h"
#include "engine/clock.h"
#include "engine/delivery.h"
#include "engine/device_places.h"
#include "engine/host_copies.h"
#include "engine/model.h"
#include "engine/placement.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "engine/sessions/sessions.h"
#include "engine/slot_pool.h"
#include "engine/slow_readers.h"
#include "engine/state_cache.h"
#include "engine/stats.h"
#include "engine/step_pacer.h"
#include "engine/token_sink.h"
#include "engine/tokenizer/tokenizer.h"
#include "kernels/backend.h"

namespace sluice {

struct EngineOptions {
  int32_t slots =
      64;  // states on the device; AllocateStates was given as many slots and count tables
  int32_t max_batch_tokens = 512;  // rows of one step; at least slots + the backend's grid
  absl::Duration slot_patience =
      absl::Seconds(1);  // a paused row keeps its slot this long while others wait
  std::vector<int32_t> eos_token_ids;

  // The most tokens of a sequence, for a model whose states grow; SetAttentionRoom was given as
  // many.
  int64_t max_attention_tokens = 0;
  int64_t prefix_cache_bytes = 0;  // part of session_limits.host_state_bytes; 0: nothing is kept
  SessionLimits session_limits;
  std::string fingerprint;                            // of the model
  bool has_store = false;                             // StoreJobs are taken and run
  bool shared_store = false;                          // other daemons use the store's directory too
  absl::Time last_uses_since = absl::InfinitePast();  // SessionStore::first_start_us
  std::function<void(const std::string&)> on_wrong_clock;  // one line; null: nobody is told
  std::vector<SessionName> session_index;                  // what the store had at the start
  std::function<uint64_t()> random;                        // for ids; null: the system's
};

class Engine {
 public:
  // All pointers outlive the engine. Backend and model are ready: weights loaded, states allocated.
  Engine(Backend* backend, Model* model, const Tokenizer* tokenizer, const Clock* clock,
         const EngineOptions& options);
  ~Engine();

  // Takes a validated request; its StartedEvent comes once its session's turn is its own. The sink
  // is closed exactly once, later.
  RequestId Submit(Request request, std::shared_ptr<TokenSink> sink);
  // Closes the request's sink with `status` (CANCELLED for a client that left). Its rows are in no
  // step formed after. Unknown and finished ids are ignored.
  void Cancel(RequestId id, absl::Status status);

  // Ends what is past its time, launches the next step if there is work for one, and finishes the
  // oldest step in flight once the backend's pipeline is full or nothing can be launched. False:
  // nothing to do until a Submit, a Cancel, room in a sink, or NextDeadline.
  bool Step();

  // The earliest time at which a request in the queue or paused must be looked at; InfiniteDuration
  // if none.
  absl::Duration NextDeadline() const;

  Sessions& sessions() { return sessions_; }

  // Requests not yet closed.
  int64_t live_requests() const { return live_; }
  // OK until the device fails; then its error, and every request has been closed with UNAVAILABLE.
  const absl::Status& device_status() const { return device_status_; }
  const EngineStats& stats() const { return stats_; }

 private:
  // Waits for the call's session; then it begins.
  void Open(Call* call);
  void Begin(Call* call);
  // OK if the model's states, which may grow, have room for the call from its beginning to its
  // end. A call that does not say how many tokens it wants gets as many as there is room for.
  absl::Status FitLimit(Call* call);
  // The call has said all it had to say.
  void End(Call* call);
  void Commit(Call* call);
  void EndWithoutRows(absl::Duration now);
  bool MustNotRunAhead() const;
  bool GrowingStates() const { return copies_.table().token_bytes() > 0; }
  bool AwaitCopies();
  void Expire(absl::Duration now);
  bool Launch(absl::Duration now);
  void ForkAfterPrompt(const Batch& batch);
  void FinishOldestStep();
  void Close(Call* call, absl::Status status);
  void Leave(Call* call);
  void Release(Call* call);
  void FailDevice(const absl::Status& status);
  // True if a step or a copy has found by now that the device has failed.
  bool DeviceFailed();
  void SetGauges();

  Backend* const backend_;
  Model* const model_;
  const Clock* const clock_;
  const EngineOptions options_;
  EngineStats stats_;
  BatchBuilder builder_;
  StepPacer pacer_;
  Delivery delivery_;
  SlotPool slots_;
  SlotPool count_tables_;
  HostCopies copies_;
  StateCache states_;
  Sessions sessions_;
  PrefixCache prefixes_;
  const DevicePlaces places_;
  const SlowReaders readers_;
  Placement placement_;
  absl::Status device_status_;
  RequestId last_id_ = 0;
  absl::flat_hash_map<RequestId, std::unique_ptr<Call>>
      calls_;  // live ones, and closed ones that a step points at
  int64_t live_ = 0;
  std::set<std::pair<absl::Duration, RequestId>> expiries_;  // finite ones of the live calls
  std::deque<std::unique_ptr<Batch>> in_flight_;
  absl::Duration last_finish_;  // of a step
  std::vector<std::unique_ptr<Batch>> idle_batches_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_ENGINE_H_
