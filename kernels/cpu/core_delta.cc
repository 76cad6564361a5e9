#include "kernels/cpu/core_delta.h"

#include "kernels/check.h"
#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/core_delta.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu/chunk_tiles-inl.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/state_step-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

// ---- One token ----

// Columns of the state that one pass takes, in vectors: whole rows of a head of 128 values.
constexpr int kPassCols = kLanes == 16 ? 8 : 4;

struct ScalarDecayNearOne {
  V factor;
  HWY_INLINE V operator()(int64_t, V s) const { return Decayed<true>(s, factor); }
};
struct ScalarDecay {
  V factor;
  HWY_INLINE V operator()(int64_t, V s) const { return Decayed<false>(s, factor); }
};
struct KeyDecay {
  const float* alpha;
  HWY_INLINE V operator()(int64_t key, V s) const { return hn::Mul(Splat(alpha[key]), s); }
};
struct NoDecay {
  HWY_INLINE V operator()(int64_t, V s) const { return s; }
};

// Columns [col, col + kCols vectors). The first pass reads what the decayed state says of k and of
// q; the second finds the same columns in a cache and updates them. `qk`: q k^T.
template <int kCols, class DecayOf>
HWY_INLINE void StepColumns(const LinearRecurrentArgs& a, DecayOf decayed, float beta, float qk,
                            int64_t col) {
  V said[kCols], o[kCols], u[kCols];
  for (int c = 0; c < kCols; ++c) said[c] = o[c] = Zero();
  float* HWY_RESTRICT s = a.state + col;
  for (int64_t i = 0; i < a.dk; ++i, s += a.dv_padded) {
    const V k = Splat(a.k[i]), q = Splat(a.q[i]);
    for (int c = 0; c < kCols; ++c) {
      const V entry = decayed(i, Load(s + c * kLanes));
      said[c] = hn::MulAdd(k, entry, said[c]);
      o[c] = hn::MulAdd(q, entry, o[c]);
    }
  }
  for (int c = 0; c < kCols; ++c) {
    u[c] = hn::Mul(Splat(beta), hn::Sub(Load(a.v + col + c * kLanes), said[c]));
    Store(hn::MulAdd(Splat(qk), u[c], o[c]), a.o + col + c * kLanes);
  }
  s = a.state + col;
  for (int64_t i = 0; i < a.dk; ++i, s += a.dv_padded) {
    const V k = Splat(a.k[i]);
    for (int c = 0; c < kCols; ++c) {
      Store(hn::MulAdd(k, u[c], decayed(i, Load(s + c * kLanes))), s + c * kLanes);
    }
  }
}

template <class DecayOf>
HWY_INLINE void StepAllColumns(const LinearRecurrentArgs& a, DecayOf decayed, float beta) {
  const float qk = Dot(a.q, a.k, a.dk);
  int64_t col = 0;
  for (; col + kPassCols * kLanes <= a.dv_padded; col += kPassCols * kLanes) {
    StepColumns<kPassCols>(a, decayed, beta, qk, col);
  }
  for (; col < a.dv_padded; col += kLanes) StepColumns<1>(a, decayed, beta, qk, col);
}

void DeltaRecurrentSimd(const LinearRecurrentArgs& a, float log_decay, float beta) {
  if (a.alpha != nullptr) return StepAllColumns(a, KeyDecay{a.alpha}, beta);
  if (log_decay == 0.0f) return StepAllColumns(a, NoDecay(), beta);
  const StepDecay decay(log_decay);
  const V factor = Splat(decay.factor);
  if (decay.near_one) return StepAllColumns(a, ScalarDecayNearOne{factor}, beta);
  StepAllColumns(a, ScalarDecay{factor}, beta);
}

// ---- Chunks ----

// Rows [t, t + kTileRows) of u (kChunk, 16), those before being there.
HWY_INLINE void SolveTile(const LinearChunk& c, const float* beta, int64_t beta_stride, int64_t t,
                          const float* state, int64_t state_stride, const float* v,
                          float* HWY_RESTRICT u) {
  const int64_t row = kChunk + t;  // of query head 1
  V acc[kTileRows][kVecs];
  ZeroRows(acc);
  Accumulate<kTileRows>(c.q_decayed + row * c.dk, c.dk, state, state_stride, c.dk, acc);
  Accumulate<kTileRows>(c.scores + row * kChunk, kChunk, u, 16, t, acc);
  for (int64_t r = 0; r < kTileRows; ++r) {
    const float* keys = c.scores + (row + r) * kChunk + t;
    const V factor = Splat(beta[(t + r) * beta_stride]);
    for (int64_t i = 0; i < kVecs; ++i) {
      const V rest = hn::Sub(Load(v + (t + r) * c.v_stride + i * kLanes), acc[r][i]);
      acc[r][i] = hn::Mul(factor, rest);
    }
    // Each later row of the tile takes this one at once, so that no chain waits for another.
    for (int64_t later = r + 1; later < kTileRows; ++later) {
      const V key = Splat(keys[(later - r) * kChunk + r]);
      for (int64_t i = 0; i < kVecs; ++i) {
        acc[later][i] = hn::MulAdd(key, acc[r][i], acc[later][i]);
      }
    }
  }
  StoreRows<kTileRows>(acc, u + t * 16, 16);
}

// One tile of o: what the state contributes, then the chunk's own tokens.
HWY_INLINE void ReadTile(const LinearChunk& c, int64_t t, int64_t col, const float* state,
                         int64_t state_stride, const float* u) {
  V acc[kTileRows][kVecs];
  ZeroRows(acc);
  Accumulate<kTileRows>(c.q_decayed + t * c.dk, c.dk, state, state_stride, c.dk, acc);
  const int64_t sources = (t / kSubChunk + 1) * kSubChunk;
  Accumulate<kTileRows>(c.scores + t * kChunk, kChunk, u, 16, sources, acc);
  StoreRows<kTileRows>(acc, c.o + t * c.o_stride + col, c.o_stride);
}

void DeltaChunkStateSimd(const LinearChunk& c, const float* beta, int64_t beta_stride,
                         int64_t col_begin, int64_t col_end, float* state, int64_t state_stride) {
  HWY_ALIGN float u[kChunk * 16];
  // Whole sub-chunks: the rows that pad them are zeros.
  const int64_t tokens = (c.tokens + kSubChunk - 1) / kSubChunk * kSubChunk;
  for (int64_t col = col_begin; col < col_end; col += 16) {
    float* s = state + col;
    for (int64_t t = 0; t < tokens; t += kTileRows) {
      SolveTile(c, beta, beta_stride, t, s, state_stride, c.v + col, u);
    }
    for (int64_t t = 0; t < tokens; t += kTileRows) ReadTile(c, t, col, s, state_stride, u);
    UpdateState(c, u, 16, tokens, s, state_stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice {
namespace {

HWY_EXPORT(DeltaRecurrentSimd);
HWY_EXPORT(DeltaChunkStateSimd);

}  // namespace

void DeltaRecurrent(const LinearRecurrentArgs& args, float log_decay, float beta) {
  SLUICE_CHECK(args.groups == 1);
  HWY_DYNAMIC_DISPATCH(DeltaRecurrentSimd)(args, log_decay, beta);
}

void DeltaChunkState(const LinearChunk& chunk, const float* beta, int64_t beta_stride,
                     int64_t col_begin, int64_t col_end, float* state, int64_t state_stride) {
  SLUICE_CHECK(chunk.groups == 2);
  HWY_DYNAMIC_DISPATCH(DeltaChunkStateSimd)
  (chunk, beta, beta_stride, col_begin, col_end, state, state_stride);
}

}  // namespace sluice
#endif  // HWY_ONCE
