// One step: the rows that it computes, and what is wanted of them. Rows are laid out decode rows
// first, then the prompt segments one after another.
#ifndef SLUICE_KERNELS_STEP_ROWS_H_
#define SLUICE_KERNELS_STEP_ROWS_H_

#include <cstdint>

namespace sluice {

inline constexpr int32_t kLastSampled = -1;

// One token that continues a sequence, computed by the recurrence.
struct DecodeRow {
  int32_t slot = 0;
  int32_t token =
      kLastSampled;  // kLastSampled: the token last sampled in `slot`, known to the device alone
  int64_t position = 0;  // of the token in its sequence: how many tokens its state has seen
};

// Consecutive tokens of a prompt, computed in chunks. `start` counts from the beginning of the call
// and is a multiple of the backend's grid; so is `length`, unless the segment is the prompt's last.
struct PromptSegment {
  int32_t slot = 0;
  int64_t start = 0;
  int32_t length = 0;
  const int32_t* tokens = nullptr;  // (length)
  int64_t position = 0;             // of the first token, as DecodeRow's
};

// The settings that the sampler draws by. The order is penalties, bias, banned ids, temperature,
// top-k, top-p, min-p, typical. Defaults switch each off. Ties go to the lower id.
struct SamplingConfig {
  float temperature = 1.0f;  // 0: greedy
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float typical_p = 1.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
};

struct TokenBias {
  int32_t token = 0;
  float bias = 0.0f;
};

// A row whose logits are wanted: to sample the next token, to score a given one, or both with
// kNoTarget unset.
inline constexpr int32_t kNoTarget = -1;

struct LogitRow {
  int32_t row = 0;  // of the step
  // The slot that keeps the sampled token as `kLastSampled`. Only one sampled row of a step may
  // name it.
  int32_t slot = 0;
  int32_t target = kNoTarget;  // given: score this token and sample nothing
  int32_t alternatives = -1;   // most likely tokens to report; -1: no log-probabilities at all
  const SamplingConfig* sampling = nullptr;  // outlives the step; required when target is kNoTarget
  uint64_t seed = 0;  // the random number is a function of (seed, sequence, position) alone
  uint32_t sequence = 0;
  uint64_t position = 0;            // of the token being sampled, counted from the session's first
  int32_t counts = -1;              // table of token counts for the penalties; -1: none needed
  const TokenBias* bias = nullptr;  // (num_bias), outlives the step
  int32_t num_bias = 0;
  const int32_t* banned = nullptr;  // (num_banned): never sampled in this step; outlives the step
  int32_t num_banned = 0;
  float* logits_out =
      nullptr;  // (vocab), host: the model's own logits, written before the step is done
};

struct TokenAlternative {
  int32_t token = 0;
  float logprob = 0.0f;
};

// Upper bound of LogitRow::alternatives.
inline constexpr int32_t kMaxAlternatives = 20;

// The answer to one LogitRow. Log-probabilities are the model's own, before penalties and
// temperature.
struct LogitResult {
  int32_t token = -1;  // sampled, or the target
  bool finite =
      true;  // false: this row's logits hold a NaN or no finite value; token is then meaningless
  float logprob = 0.0f;  // of `token`; set when alternatives >= 0
  int32_t rank = 0;      // 1: the most likely
  int32_t num_alternatives = 0;
  TokenAlternative alternatives[kMaxAlternatives];  // most likely first
};

// Pointers must stay valid until the step is awaited.
struct StepRows {
  const DecodeRow* decode = nullptr;
  int32_t num_decode = 0;
  const PromptSegment* prompts = nullptr;
  int32_t num_prompts = 0;
  const LogitRow* logits = nullptr;
  int32_t num_logits = 0;
  LogitResult* results = nullptr;  // (num_logits), host; written before the step is done
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_STEP_ROWS_H_
