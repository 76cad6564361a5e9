// One live request inside the engine, and the sequences it generates. Internal to engine/.
#ifndef SLUICE_ENGINE_CALL_H_
#define SLUICE_ENGINE_CALL_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/host_copies.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "engine/sessions/session.h"
#include "engine/text_output.h"
#include "engine/token_sink.h"
#include "kernels/backend.h"

namespace sluice {

using RequestId = uint64_t;

// Legal order: kOpening -> kQueued -> kFollowing -> kLoading -> kReady <-> kPaused -> kSpilled ->
// kLoading; kOpening, kFollowing or kLoading may be left out, kReady, kPaused, kSpilled ->
// kCommitting; any -> kClosed.
enum class CallState : uint8_t {
  kOpening,     // waits for its session
  kQueued,      // waits for slots; nothing on the device
  kFollowing,   // its turn has come, but another call computes what its prompt begins with
  kLoading,     // its states are on their way from the host into slots
  kReady,       // its rows may be in the next step
  kPaused,      // its reader is too slow; keeps its slots
  kSpilled,     // its reader is too slow and others wanted the slots: its states are in host memory
  kCommitting,  // has said all but its end, which waits for the disk
  kClosed,      // the sink is closed; kept only until the steps that point at it are done
};

struct Sequence {
  int32_t index = 0;
  int32_t slot = -1;
  int32_t counts = -1;      // table of token counts; -1: no penalty needs one
  int64_t launched = 0;     // tokens sampled, those of steps in flight included
  int64_t received = 0;     // tokens known to the host
  int32_t last_token = -1;  // the one received last
  absl::Duration first_token_time;
  absl::Duration last_token_time;
  bool finished = false;
  uint64_t round = 0;                // of BatchBuilder's: the last in which it had its turn
  std::unique_ptr<TextOutput> text;  // null when no text is wanted and no stop string looked for
  std::unique_ptr<StreamDecoder> history;  // of a call that commits: what its text leaves undecoded
  HistoryEnd said;                         // of a call with a note
  HostState host;                          // the state while kSpilled or kLoading
  Ticket copy = 0;                         // between `host` and the slot
};

struct Call {
  RequestId id = 0;
  Request request;
  std::shared_ptr<TokenSink> sink;
  CallState state = CallState::kOpening;

  std::shared_ptr<SessionUse> use;  // null: no session
  bool commits = false;
  bool exact = false;   // no token may be computed that might turn out to be one too many
  bool ending = false;  // its time is over; ends once no step holds it
  int64_t carried = 0;  // 1: prompt[0] is the last token of the session's history, not yet computed
  int64_t base = 0;     // tokens of the history before prompt[0]
  int64_t echoed = 0;   // of the prompt
  int64_t reused = 0;   // prompt tokens whose state came from the prefix cache
  bool numeric_fault = false;          // a row of it was not finite
  PrefixPlan plan;                     // what the prefix cache gets of its prompt
  RequestId leader = 0;                // kFollowing: whom it waits for; 0: for a copy
  int64_t leader_tokens = 0;           // to have computed
  std::unique_ptr<FinishedEvent> end;  // of a call that commits: told once it has
  absl::Duration load_started;

  int64_t prompt_launched = 0;  // prompt tokens in steps so far
  int64_t prompt_done = 0;      // of them, in steps that are finished
  std::vector<Sequence> sequences;
  int32_t open_sequences = 0;
  Room spill_room;              // for the sequences' `host` states, from kSpilled to kReady
  int32_t steps_in_flight = 0;  // steps that hold pointers into this call

  absl::Duration submitted;
  absl::Duration first_step_time = absl::InfiniteDuration();
  absl::Duration prompt_done_time;
  absl::Duration paused_since;

  std::unique_ptr<StreamDecoder> echo;  // of the prompt, when it is echoed
  double score_total = 0.0;
  int64_t scored_tokens = 0;

  // Tokens of the prompt that the caller sent.
  int64_t prompt_tokens() const { return static_cast<int64_t>(request.prompt.size()) - carried; }
  // Tokens of `prompt` to be computed. A commit leaves the last token of the history to the next
  // call.
  int64_t prompt_rows() const {
    const bool leave_last = commits && request.stop.max_new_tokens == 0;
    return static_cast<int64_t>(request.prompt.size()) - (leave_last ? 1 : 0);
  }
  // Tokens of the sequence once all is said, as far as the model's limit counts them.
  int64_t length() const {
    return base + static_cast<int64_t>(request.prompt.size()) + request.stop.max_new_tokens;
  }
  // Tokens that a sequence's state will have seen at the end: the last one sampled is not computed.
  int64_t final_tokens() const {
    const int32_t decoded = std::max(request.stop.max_new_tokens - 1, 0);
    return base + prompt_rows() + decoded;
  }
  // Tokens that the state in the sequence's slot has seen, with all steps launched so far.
  int64_t seen(const Sequence& sequence) const {
    if (sequence.index > 0 && in_prompt()) return 0;  // it gets a copy of the first one's
    return base + prompt_launched + std::max<int64_t>(sequence.launched - 1, 0);
  }
  // The next step must not go beyond this position.
  int64_t next_cut() const { return plan.cuts.empty() ? prompt_rows() : plan.cuts.front(); }
  bool in_prompt() const { return prompt_launched < prompt_rows(); }
  // True if tokens are left to compute for `sequence`.
  bool goes_on(const Sequence& sequence) const {
    return !sequence.finished && !ending && sequence.launched < request.stop.max_new_tokens;
  }
  bool decodes() const {
    return !in_prompt() && std::any_of(sequences.begin(), sequences.end(),
                                       [&](const Sequence& s) { return goes_on(s); });
  }
  absl::Span<const int32_t> own_prompt() const {
    return absl::MakeConstSpan(request.prompt).subspan(carried);
  }
  bool has_slots() const {
    return state == CallState::kReady || state == CallState::kPaused ||
           state == CallState::kLoading;
  }
  // The next time at which the call must end, one way or the other.
  absl::Duration expiry() const {
    return std::min(request.deadline, submitted + request.stop.time_limit);
  }
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_CALL_H_
