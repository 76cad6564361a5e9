// A caller's request to the engine, already validated: every bound is checked before
// (server/validate.cc).
#ifndef SLUICE_ENGINE_REQUEST_H_
#define SLUICE_ENGINE_REQUEST_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "kernels/step_rows.h"

namespace sluice {

struct StopConditions {
  int32_t max_new_tokens = 256;      // 0: take the prompt in, generate nothing
  bool max_new_tokens_given = true;  // false: fewer will do where the sequence may have no more
  int32_t min_new_tokens =
      0;  // EOS and stop tokens are not sampled, stop strings not looked for, before
  std::vector<std::string> strings;
  std::vector<int32_t> token_ids;
  bool ignore_eos = false;
  bool include_stop = false;  // the matched stop is part of the text
  absl::Duration time_limit =
      absl::InfiniteDuration();  // since Submit; a normal end once the prompt is done
};

struct OutputOptions {
  bool text = true;
  bool token_ids = false;
  bool echo = false;             // the prompt's text (and ids) come first
  int32_t logprobs = -1;         // alternatives for each generated token; -1: no log-probabilities
  int32_t prompt_logprobs = -1;  // alternatives for each prompt token but the first; -1: none
};

// The choices of a call when another one is writing to its session.
enum class OnConflict : uint8_t { kFail, kWait, kCancelRunning };

// What a call's end leaves in its session's history.
struct HistoryEnd {
  std::string said{};     // the text that was given out
  std::string unsaid{};   // the text behind it: a stop string, and what came with it in one token
  std::string control{};  // the name of the control token that ended it, which has no text
};

enum class RequestKind : uint8_t {
  kGenerate,
  kScore,  // log-probabilities of the prompt alone; ends with a ScoreSummary
};

struct Request {
  RequestKind kind = RequestKind::kGenerate;
  std::string request_id;
  std::vector<int32_t> prompt;  // at least one token, unless its session has a history
  SamplingConfig sampling;
  std::vector<TokenBias> logit_bias;
  uint64_t seed = 0;  // sequence i draws from (seed, i)
  StopConditions stop;
  OutputOptions output;
  int32_t n = 1;                    // sequences; the prompt is computed once
  int32_t priority = 0;             // higher first
  int32_t score_alternatives = 0;   // kScore: most likely next tokens in the summary
  bool score_summary_only = false;  // kScore: no PromptLogprobs events
  absl::Duration deadline = absl::InfiniteDuration();  // on the engine's clock

  std::string tenant;
  int32_t tenant_weight = 1;  // its share beside other tenants that wait
  // The time between two tokens that the tenant was promised, at the cost of tenants without a
  // promise.
  absl::Duration inter_token = absl::InfiniteDuration();
  std::string session_id;  // "": none
  std::string etag;        // the session's must be this one; "": any
  bool commit = true;      // to the session; needs n == 1. A score never does.
  OnConflict on_conflict = OnConflict::kFail;
  bool durable = false;  // the end is told once the commit is on disk
  std::vector<int32_t>
      prompt_if_empty;  // taken instead of `prompt` when the session has no history
  bool bypass_prefix_cache = false;
  // The call does not go on from its session's history: it takes prompt_if_empty, and what it
  // commits replaces the history.
  bool from_start = false;
  // Gives the state that the call commits its note (StateInfo::note). Null: it has none. It is
  // short and pure, and runs on the engine's thread.
  std::function<std::string(const HistoryEnd& end)> note;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_REQUEST_H_
