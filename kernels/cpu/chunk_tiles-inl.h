// Register tiles of the chunkwise form: products of a few rows with 16 columns, summed in the order
// of the inner dimension, and the update of a state by a chunk. Included once per instruction set.
#if defined(SLUICE_KERNELS_CPU_CHUNK_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_KERNELS_CPU_CHUNK_TILES_INL_H_
#undef SLUICE_KERNELS_CPU_CHUNK_TILES_INL_H_
#else
#define SLUICE_KERNELS_CPU_CHUNK_TILES_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/linear_chunk.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

// Rows of a register tile: enough chains to hide latency, few enough for the registers.
constexpr int64_t kTileRows = kLanes == 16 ? 8 : 4;

template <int64_t kRows>
HWY_INLINE void ZeroRows(V (&acc)[kRows][kVecs]) {
  for (auto& row : acc) {
    for (V& sum : row) sum = Zero();
  }
}

// acc (kRows, 16) += a (kRows, n) times b (n, 16), in order of n.
template <int64_t kRows>
HWY_INLINE void Accumulate(const float* HWY_RESTRICT a, int64_t a_stride,
                           const float* HWY_RESTRICT b, int64_t b_stride, int64_t n,
                           V (&acc)[kRows][kVecs]) {
  for (int64_t i = 0; i < n; ++i, b += b_stride) {
    V line[kVecs];
    for (int64_t v = 0; v < kVecs; ++v) line[v] = Load(b + v * kLanes);
    for (int64_t r = 0; r < kRows; ++r) {
      const V x = Splat(a[r * a_stride + i]);
      for (int64_t v = 0; v < kVecs; ++v) acc[r][v] = hn::MulAdd(x, line[v], acc[r][v]);
    }
  }
}

template <int64_t kRows>
HWY_INLINE void StoreRows(const V (&acc)[kRows][kVecs], float* out, int64_t stride) {
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t v = 0; v < kVecs; ++v) Store(acc[r][v], out + r * stride + v * kLanes);
  }
}

// Rows [row, row + kRows) of the state (dk, state_stride), 16 columns: decayed, then each token's
// k^T v in order.
template <int64_t kRows>
HWY_INLINE void StateTile(const LinearChunk& c, int64_t row, const float* v, int64_t v_stride,
                          int64_t tokens, float* state, int64_t state_stride) {
  float* s = state + row * state_stride;
  V acc[kRows][kVecs];
  for (int64_t r = 0; r < kRows; ++r) {
    const V decay = Splat(c.decay[row + r]);
    for (int64_t i = 0; i < kVecs; ++i)
      acc[r][i] = hn::Mul(decay, Load(s + r * state_stride + i * kLanes));
  }
  Accumulate<kRows>(c.k_decayed + row * kChunk, kChunk, v, v_stride, tokens, acc);
  StoreRows<kRows>(acc, s, state_stride);
}

// 16 columns of the state over the chunk's first `tokens` rows, whose values are v (tokens,
// v_stride).
HWY_INLINE void UpdateState(const LinearChunk& c, const float* v, int64_t v_stride, int64_t tokens,
                            float* state, int64_t state_stride) {
  int64_t row = 0;
  for (; row + kTileRows <= c.dk; row += kTileRows) {
    StateTile<kTileRows>(c, row, v, v_stride, tokens, state, state_stride);
  }
  for (; row < c.dk; ++row) StateTile<1>(c, row, v, v_stride, tokens, state, state_stride);
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#endif  // SLUICE_KERNELS_CPU_CHUNK_TILES_INL_H_
