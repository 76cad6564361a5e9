// Gated linear attention over the tokens of a prompt in the chunkwise form with secondary chunking
// (arXiv 2312.06635, sections 4.2 and 4.3), chunks of 64 and sub-chunks of 16. For a chunk that the
// state S enters, with A_st = prod of alpha over the tokens in (s, t], elementwise over key
// channels:
//   scores[t, s] = (q_t * A_st) k_s^T                                   s <= t
//   o_t          = (q_t * A_0t) S + sum_{s <= t} scores[t, s] v_s
//   S            <- diag(A_0n) S + sum_s (k_s * A_sn)^T v_s             n: the last valid token
// In scores, blocks of 16 x 16 on the diagonal are evaluated directly; in a block below it, A_st is
// split at the beginning of t's sub-chunk, so that the block is a matrix product.
//
// Stability: a decay over a span is always the product of the span's own alphas, each in (0, 1],
// and never a quotient of cumulative products. Nothing can overflow, and underflow to zero is the
// right limit.
#ifndef SLUICE_KERNELS_CPU_LINEAR_CHUNK_H_
#define SLUICE_KERNELS_CPU_LINEAR_CHUNK_H_

#include <cstdint>

namespace sluice {

inline constexpr int64_t kChunk = 64;
inline constexpr int64_t kSubChunk = 16;

// One kv head of one chunk, with the query heads that share it. Rows past the last valid token hold
// q = k = v = 0 and alpha = 1, which changes nothing.
struct LinearChunk {
  int64_t tokens = 0;  // valid rows, in [1, kChunk]
  int64_t dk = 0;
  int64_t groups = 0;        // query heads that share the state
  const float* q = nullptr;  // (kChunk, q_stride), scaled; group g begins at column g * dk
  int64_t q_stride = 0;
  const float* k = nullptr;  // (kChunk, k_stride)
  int64_t k_stride = 0;
  const float* alpha = nullptr;  // (kChunk, alpha_stride)
  int64_t alpha_stride = 0;
  const float* v = nullptr;  // (kChunk, v_stride), padded to lines
  int64_t v_stride = 0;
  float* o = nullptr;  // out: (groups, kChunk, o_stride), padded to lines
  int64_t o_stride = 0;
  // Between the two steps below:
  float* q_decayed = nullptr;  // (groups, kChunk, dk): q_t * A_0t
  float* k_decayed = nullptr;  // (dk, kChunk): k_s * A_sn
  float* decay = nullptr;      // (dk): A_0n
  float* scores = nullptr;     // (groups, kChunk, kChunk), zero above the diagonal
};

// Floats of scratch that LinearChunkScores needs.
int64_t LinearChunkScratch(int64_t dk, int64_t groups);

// Computes everything that does not need the state, so that all chunks can be computed at once:
// fills q_decayed, k_decayed, decay and scores. `scratch` is the calling thread's.
void LinearChunkScores(const LinearChunk& chunk, float* scratch);

// Takes the columns [col_begin, col_end) of the state (dk, state_stride), multiples of 16, through
// the chunk.
void LinearChunkState(const LinearChunk& chunk, int64_t col_begin, int64_t col_end, float* state,
                      int64_t state_stride);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_LINEAR_CHUNK_H_
