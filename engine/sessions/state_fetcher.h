// Committed states that are to come to host memory from the files of sessions that hold them.
// Internal to engine/sessions.
#ifndef SLUICE_ENGINE_SESSIONS_STATE_FETCHER_H_
#define SLUICE_ENGINE_SESSIONS_STATE_FETCHER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "engine/sessions/session_endings.h"

namespace sluice {

class StateFetcher {
 public:
  // All outlive the object.
  StateFetcher(const SessionContext& context, SessionTable* table, SessionQueue* queue,
               SessionEndings* endings)
      : context_(context), table_(table), queue_(queue), endings_(endings) {}

  // Calls `ready` once the state's data is in host memory: at once or later. RESOURCE_EXHAUSTED
  // without room for it, a lost race when no session has its file any more, DATA_LOSS when the file
  // is gone or damaged.
  void Fetch(const StatePtr& state, std::function<void(absl::Status)> ready);
  // A read for each state whose file can be had.
  void AddJobs(std::vector<std::unique_ptr<StoreJob>>* jobs);
  // `holder` is the session whose file it was.
  void Done(Session* holder, StoreJob* job);

  bool empty() const { return wanted_.empty(); }
  // Whoever waits will not hear of it from here.
  Waits TakeWaits();

 private:
  std::unique_ptr<StoreJob> MakeJob(const StatePtr& state);
  void Finish(const StatePtr& state, const absl::Status& status);

  const SessionContext context_;
  SessionTable* const table_;
  SessionQueue* const queue_;
  SessionEndings* const endings_;
  std::deque<StatePtr> wanted_;
  absl::flat_hash_map<uint64_t, StatePtr> reading_;  // by job
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSIONS_STATE_FETCHER_H_
