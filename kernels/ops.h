// What the ops of a backend are given: plain structs of sizes, handles and host pointers.
// Names are the paper's (arXiv 2312.06635). Shapes are row-major, last dimension contiguous.
#ifndef SLUICE_KERNELS_OPS_H_
#define SLUICE_KERNELS_OPS_H_

#include <cstddef>
#include <cstdint>

namespace sluice {

enum class DType : uint8_t { kF32, kF16, kBF16 };

inline constexpr int64_t DTypeBytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

// Elementwise map on q and k, applied per head after the short convolution.
enum class FeatureMap : uint8_t {
  kIdentity,
  kRelu,
  kSigmoid,
  kLogSigmoid,
  kSilu,
  kSquaredRelu,
  kGeluTanh,
};

// Every number that the shapes of a GLA model follow from. Checked when the config is read.
struct ModelShape {
  int64_t vocab = 0;
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t heads = 0;         // query heads
  int64_t kv_heads = 0;      // divides heads; one state per kv head
  int64_t dk = 0;            // per head
  int64_t dv = 0;            // per head
  int64_t gate_rank = 16;    // inner width of the log gate's two matrices
  int64_t intermediate = 0;  // of the SwiGLU
  int64_t conv_size = 0;     // taps of the short convolution on q, k, v; 0: none
  FeatureMap feature_map = FeatureMap::kIdentity;
  bool output_gate = true;
  bool clamp_log_gate = false;
  float log_gate_min = 0.0f;  // used when clamp_log_gate
  float norm_eps = 1e-6f;

  int64_t q_dim() const { return heads * dk; }
  int64_t k_dim() const { return kv_heads * dk; }
  int64_t v_dim() const { return kv_heads * dv; }
  int64_t out_dim() const { return heads * dv; }
  // Columns of the mixer's input projection: q | k | v | low-rank gate | output gate (if any).
  int64_t q_offset() const { return 0; }
  int64_t k_offset() const { return q_dim(); }
  int64_t v_offset() const { return k_offset() + k_dim(); }
  int64_t gate_offset() const { return v_offset() + v_dim(); }
  int64_t g_offset() const { return gate_offset() + gate_rank; }
  int64_t mixer_in_dim() const { return g_offset() + (output_gate ? out_dim() : 0); }
};

// A matrix as a checkpoint stores it, in host memory.
struct MatrixView {
  const void* data = nullptr;  // (rows, cols)
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

// Handles to memory that a backend owns until it is destroyed. What is behind `data` is its own
// affair.
struct Vector {  // fp32
  const float* data = nullptr;
  int64_t size = 0;
};
struct Linear {  // y = x W^T, W (n, k), in the checkpoint's dtype and the backend's layout
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t n = 0;
  int64_t k = 0;
};
struct Activation {  // (rows, cols), in the dtype the backend computes in
  void* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
};

// ---- One step: the rows it computes ----
// Rows are laid out decode rows first, then the prompt segments one after another.

inline constexpr int32_t kLastSampled = -1;

// One token that continues a sequence, computed by the recurrence.
struct DecodeRow {
  int32_t slot = 0;
  int32_t token =
      kLastSampled;  // kLastSampled: the token last sampled in `slot`, known to the device alone
};

// Consecutive tokens of a prompt, computed in chunks. `start` counts from the beginning of the call
// and is a multiple of the backend's grid; so is `length`, unless the segment is the prompt's last.
struct PromptSegment {
  int32_t slot = 0;
  int64_t start = 0;
  int32_t length = 0;
  const int32_t* tokens = nullptr;  // (length)
};

// What the sampler draws from; the order is penalties, bias, banned ids, temperature, top-k, top-p,
// min-p, typical. Defaults switch each off. Ties go to the lower id.
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
  // Where a sampled token is kept as `kLastSampled`; of one sampled row of a step alone.
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

// ---- Ops, in the order a layer runs them; `rows` below is the number of rows of the step ----

struct EmbedArgs {
  Linear table;  // (vocab, hidden)
  Activation x;  // out: (rows, hidden)
};

// y = RMSNorm(x; norm) W^T
struct NormProjectArgs {
  Activation x;   // (rows, hidden)
  Vector norm;    // (hidden)
  Linear weight;  // (mixer_in_dim, hidden)
  Activation y;   // out: (rows, mixer_in_dim): q | k | v | low-rank gate | output gate
};

// The token mixer whole: short convolution, feature map, log gate, recurrence (decode rows) or
// chunks (prompt segments) on the slots' states, per-head norm, output gate.
struct MixArgs {
  int64_t layer = 0;
  Activation in;     // (rows, mixer_in_dim)
  Linear gate;       // (kv_heads * dk, gate_rank)
  Vector gate_bias;  // (kv_heads * dk)
  Vector conv_q;     // (q_dim, conv_size), empty without short convolution
  Vector conv_k;     // (k_dim, conv_size)
  Vector conv_v;     // (v_dim, conv_size)
  Vector head_norm;  // (dv), empty: no weight
  Activation out;    // out: (rows, out_dim)
};

// x += a W^T
struct ProjectAddArgs {
  Activation a;   // (rows, k)
  Linear weight;  // (hidden, k)
  Activation x;   // in, out: (rows, hidden)
};

// y = silu(b Wg^T) * (b Wu^T) with b = RMSNorm(x; norm)
struct NormGateUpArgs {
  Activation x;   // (rows, hidden)
  Vector norm;    // (hidden)
  Linear weight;  // (2 * intermediate, hidden): made by LoadGateUp
  Activation y;   // out: (rows, intermediate)
};

// logits = RMSNorm(x; norm) W^T for StepRows::logits, then scores and samples them.
struct LogitsArgs {
  Activation x;   // (rows, hidden)
  Vector norm;    // (hidden)
  Linear weight;  // (vocab, hidden)
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_OPS_H_
