// The delta core (arXiv 2102.11174, 2406.06484), for all three kinds of decay that it has: none
// (delta_net), a number per head (gated_deltanet), a number per key channel (kda):
//   S <- D S,   u = beta (v - k S),   S <- S + k^T u,   o = q S
// It overwrites what the state says of the key k by v, where the linear core adds to it.
//
// For a chunk that the state S enters, with A_st = prod of D over the tokens in (s, t]:
//   keys[t, s]  = (k_t * A_st) k_s^T   s < t        queries[t, s] = (q_t * A_st) k_s^T   s <= t
//   u_t         = beta_t (v_t - (k_t * A_0t) S - sum_{s < t} keys[t, s] u_s)
//   o_t         = (q_t * A_0t) S + sum_{s <= t} queries[t, s] u_s
//   S           <- diag(A_0n) S + sum_s (k_s * A_sn)^T u_s             n: the last valid token
// Both triangles, the decayed rows and the decayed keys are what the linear core's chunk computes
// for two query heads, q and k, so that LinearChunkScores and ScalarChunkScores serve both cores,
// and no exponent is above zero here either. The papers' UT transform writes u as the solution of a
// unit lower triangular system, U = (I + diag(beta) keys)^-1 diag(beta) (V - (K * A) S), and forms
// the inverse, whose entries can be large. Here the system is solved by forward substitution in
// fp32, tile by tile, which costs no more and inverts nothing.
#ifndef SLUICE_KERNELS_CPU_CORE_DELTA_H_
#define SLUICE_KERNELS_CPU_CORE_DELTA_H_

#include <cstdint>

#include "kernels/cpu/linear_chunk.h"
#include "kernels/cpu/linear_recurrent.h"

namespace sluice {

// One token of one state head, whose only query is args.q; the state is read from memory once and
// written once. Where args.alpha is null it decays by e^log_decay, log_decay <= 0.
void DeltaRecurrent(const LinearRecurrentArgs& args, float log_decay, float beta);

// Takes the columns [col_begin, col_end) of the state (dk, state_stride), multiples of 16, through
// the chunk, which has been through LinearChunkScores or ScalarChunkScores with q as query head 0
// and k as query head 1. beta (kChunk), beta_stride apart: 0 for rows past the last valid token, up
// to a whole sub-chunk. Writes the o of query head 0.
void DeltaChunkState(const LinearChunk& chunk, const float* beta, int64_t beta_stride,
                     int64_t col_begin, int64_t col_end, float* state, int64_t state_stride);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_CORE_DELTA_H_
