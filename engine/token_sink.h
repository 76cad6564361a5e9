// Takes a request's results. The engine calls it on its driving thread; an implementation never
// blocks.
#ifndef SLUICE_ENGINE_TOKEN_SINK_H_
#define SLUICE_ENGINE_TOKEN_SINK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/session_info.h"
#include "kernels/step_rows.h"

namespace sluice {

enum class FinishReason : uint8_t {
  kMaxTokens,
  kEos,
  kStopString,
  kStopToken,
  kTimeLimit,
  kError,  // this sequence alone failed
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0f;  // of the model itself, before penalties and temperature
  int32_t rank = 0;      // 1: the most likely
  std::vector<TokenAlternative> alternatives;
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;
  int64_t new_tokens = 0;
};

struct Timings {
  absl::Duration queue;    // Submit to the first step with a row of it
  absl::Duration prefill;  // to the first token (to the end of the prompt, when none is generated)
  absl::Duration decode;   // first to last token
  absl::Duration time_to_first_token;  // since Submit; zero when none was generated
};

// First event of every request: pushed by Submit, for a request with a session once its turn has
// come.
struct StartedEvent {
  int64_t prompt_tokens = 0;
  uint64_t seed = 0;
};

// The log-probabilities of prompt tokens 1, 2, ..., in pieces, in order.
struct PromptLogprobsEvent {
  std::vector<TokenLogprob> logprobs;
};

struct DeltaEvent {
  int32_t index = 0;
  std::string text;  // whole UTF-8
  std::vector<int32_t> token_ids;
  std::vector<TokenLogprob> logprobs;
};

struct FinishedEvent {
  int32_t index = 0;
  FinishReason reason = FinishReason::kMaxTokens;
  std::string matched_stop;
  int32_t stop_token = -1;  // with kStopToken
  Usage usage;
  Timings timings;
  absl::Status status;                         // not OK with kError only
  std::shared_ptr<const SessionInfo> session;  // after the commit; null when nothing was committed
};

struct ScoreSummaryEvent {
  int64_t tokens = 0;
  int64_t scored_tokens = 0;
  double total_logprob = 0.0;
  std::vector<TokenAlternative> next;
};

using TokenEvent =
    std::variant<StartedEvent, PromptLogprobsEvent, DeltaEvent, FinishedEvent, ScoreSummaryEvent>;

class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // Events that can be pushed now. A request whose sink has less room than one step may need is
  // paused: its rows are in no batch, its states stay, until there is room again. (A time limit
  // ends a paused request too: the pushes that takes, RoomForStep at most, come whether or not
  // there is room.)
  virtual int32_t Room() const = 0;
  virtual void Push(TokenEvent event) = 0;
  // The last call, exactly once. OK: every sequence had its FinishedEvent. Not OK: the call as a
  // whole failed.
  virtual void Close(absl::Status status) = 0;
};

// Room a request of n sequences may need in one step.
inline constexpr int32_t RoomForStep(int32_t n) { return 3 * n + 2; }

}  // namespace sluice

#endif  // SLUICE_ENGINE_TOKEN_SINK_H_
