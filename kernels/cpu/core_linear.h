// The linear core, S <- D S + k^T v and o = q S, where D is the same for all keys of a state head:
// none (linear_attn), a constant (retnet, transnormer) or one number a token (mamba2). A decay per
// key channel is linear_recurrent.h's and linear_chunk.h's.
//
// A scalar decay needs no sub-chunks: with G_t the sum of the chunk's log decays through token t,
//   scores[t, s] = exp(G_t - G_s) q_t k_s^T                         s <= t
//   o_t          = (exp(G_t) q_t) S + sum_{s <= t} scores[t, s] v_s
//   S            <- exp(G_n) S + sum_s (exp(G_n - G_s) k_s)^T v_s   n: the last valid token
// so that scores are one product times an elementwise table. No exponent is above zero: what lies
// above the diagonal is masked before exp. G is kept in fp64, since after a strong decay a
// difference of fp32 sums has lost its digits. o and S are LinearChunkState's, from what
// ScalarChunkScores writes.
//
// The normaliser of linear attention, z <- D z + k and den = q z, rides along.
#ifndef SLUICE_KERNELS_CPU_CORE_LINEAR_H_
#define SLUICE_KERNELS_CPU_CORE_LINEAR_H_

#include <cstdint>

#include "kernels/cpu/linear_chunk.h"
#include "kernels/cpu/linear_recurrent.h"

namespace sluice {

// One token of one state head. `args.alpha` is not read: the state decays by e^log_decay,
// log_decay <= 0.
void ScalarRecurrent(const LinearRecurrentArgs& args, float log_decay);

// One chunk of the state heads that share their queries and keys: several query heads with one
// state (grouped queries), or one with several states (mamba2). Rows past the last valid token hold
// q = k = 0, up to a whole sub-chunk.
struct ScalarChunk {
  int64_t tokens = 0;  // valid rows, in [1, kChunk]
  int64_t dk = 0;
  int64_t queries = 1;       // query heads
  int64_t states = 1;        // state heads
  const float* q = nullptr;  // (kChunk, q_stride), scaled; head g begins at column g * dk
  int64_t q_stride = 0;
  const float* k = nullptr;  // (kChunk, k_stride)
  int64_t k_stride = 0;
  // (tokens, decay_stride), column s for state head s; a stride of 0 is a constant decay, null
  // none.
  const float* log_decay = nullptr;
  int64_t decay_stride = 0;
  // Out, as in LinearChunk, state head after state head; `decay` is the same for all keys of a
  // head.
  float* q_decayed = nullptr;  // (states, queries, kChunk, dk)
  float* k_decayed = nullptr;  // (states, dk, kChunk)
  float* decay = nullptr;      // (states, dk)
  float* scores = nullptr;     // (states, queries, kChunk, kChunk), zero above the diagonal
};

// Floats of scratch that ScalarChunkScores needs.
int64_t ScalarChunkScratch(int64_t dk);

// Fills q_decayed, k_decayed, decay and scores. `scratch` is the calling thread's.
void ScalarChunkScores(const ScalarChunk& chunk, float* scratch);

// z (dk) and the denominators of one state head at one token: those of args.groups query heads.
void NormaliserRecurrent(const LinearRecurrentArgs& args, float log_decay, float* z, float* den);

// The same over a chunk, after its scores: den (groups, kChunk).
void NormaliserChunk(const LinearChunk& chunk, float* z, float* den);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_CORE_LINEAR_H_
