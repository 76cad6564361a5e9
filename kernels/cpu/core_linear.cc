#include "kernels/cpu/core_linear.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/core_linear.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu/chunk_tiles-inl.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/state_step-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

// Columns [col, col + kCols vectors): update them and give the first query head its output.
template <bool kNearOne, int kCols>
HWY_INLINE void UpdateColumns(const LinearRecurrentArgs& a, V factor, int64_t col) {
  V v[kCols], o[kCols];
  for (int c = 0; c < kCols; ++c) {
    v[c] = Load(a.v + col + c * kLanes);
    o[c] = Zero();
  }
  float* HWY_RESTRICT s = a.state + col;
  for (int64_t i = 0; i < a.dk; ++i, s += a.dv_padded) {
    const V k = Splat(a.k[i]), q = Splat(a.q[i]);
    for (int c = 0; c < kCols; ++c) {
      const V updated = hn::MulAdd(k, v[c], Decayed<kNearOne>(Load(s + c * kLanes), factor));
      Store(updated, s + c * kLanes);
      o[c] = hn::MulAdd(q, updated, o[c]);
    }
  }
  for (int c = 0; c < kCols; ++c) Store(o[c], a.o + col + c * kLanes);
}

// The other query heads of the group: the columns are still in the first-level cache.
template <int kCols>
HWY_INLINE void ReadColumns(const LinearRecurrentArgs& a, int64_t group, int64_t col) {
  const float* q = a.q + group * a.q_stride;
  V o[kCols];
  for (int c = 0; c < kCols; ++c) o[c] = Zero();
  const float* s = a.state + col;
  for (int64_t i = 0; i < a.dk; ++i, s += a.dv_padded) {
    for (int c = 0; c < kCols; ++c) o[c] = hn::MulAdd(Splat(q[i]), Load(s + c * kLanes), o[c]);
  }
  for (int c = 0; c < kCols; ++c) Store(o[c], a.o + group * a.dv_padded + col + c * kLanes);
}

template <bool kNearOne, int kCols>
HWY_INLINE int64_t Columns(const LinearRecurrentArgs& a, V factor, int64_t col) {
  for (; col + kCols * kLanes <= a.dv_padded; col += kCols * kLanes) {
    UpdateColumns<kNearOne, kCols>(a, factor, col);
    for (int64_t group = 1; group < a.groups; ++group) ReadColumns<kCols>(a, group, col);
  }
  return col;
}

template <bool kNearOne>
HWY_INLINE void AllColumns(const LinearRecurrentArgs& a, V factor) {
  const int64_t col = Columns<kNearOne, 4>(a, factor, 0);
  Columns<kNearOne, 1>(a, factor, col);
}

void ScalarRecurrentSimd(const LinearRecurrentArgs& a, float log_decay) {
  const StepDecay decay(log_decay);
  if (decay.near_one) {
    AllColumns<true>(a, Splat(decay.factor));
  } else {
    AllColumns<false>(a, Splat(decay.factor));
  }
}

// ---- Chunks ----

// keys (dk, kChunk), columns [0, rows): the transpose of k (rows, stride).
HWY_INLINE void TransposeKeys(const float* HWY_RESTRICT k, int64_t stride, int64_t dk, int64_t rows,
                              float* HWY_RESTRICT keys) {
  constexpr int64_t kBlock = 16;
  for (int64_t begin = 0; begin < dk; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, dk);
    for (int64_t s = 0; s < rows; ++s) {
      for (int64_t i = begin; i < end; ++i) keys[i * kChunk + s] = k[s * stride + i];
    }
  }
}

// product (rows, kChunk) = q keys, blocks of 16 columns at and below the diagonal.
HWY_INLINE void QueryKeyProduct(const float* HWY_RESTRICT q, int64_t stride, int64_t dk,
                                int64_t rows, const float* HWY_RESTRICT keys,
                                float* HWY_RESTRICT product) {
  for (int64_t t = 0; t < rows; t += kTileRows) {
    for (int64_t s = 0; s <= t; s += kSubChunk) {
      V acc[kTileRows][kVecs];
      for (auto& row : acc) {
        for (V& sum : row) sum = Zero();
      }
      for (int64_t i = 0; i < dk; ++i) {
        V line[kVecs];
        for (int64_t v = 0; v < kVecs; ++v) line[v] = Load(keys + i * kChunk + s + v * kLanes);
        for (int64_t r = 0; r < kTileRows; ++r) {
          const V x = Splat(q[(t + r) * stride + i]);
          for (int64_t v = 0; v < kVecs; ++v) acc[r][v] = hn::MulAdd(x, line[v], acc[r][v]);
        }
      }
      for (int64_t r = 0; r < kTileRows; ++r) {
        for (int64_t v = 0; v < kVecs; ++v) {
          Store(acc[r][v], product + (t + r) * kChunk + s + v * kLanes);
        }
      }
    }
  }
}

// x[i] = exp(x[i]) for whole vectors.
HWY_INLINE void ExpAll(int64_t n, float* x) {
  for (int64_t i = 0; i < n; i += kLanes) Store(Exp(D(), Load(x + i)), x + i);
}

// The decays of one state head over a chunk, from the log decays of its tokens.
struct ChunkDecays {
  double sum[kChunk];              // through token t; that of the last valid token past it
  HWY_ALIGN float into[kChunk];    // e^sum[t]: of what entered the chunk, at token t
  HWY_ALIGN float out_of[kChunk];  // e^(sum[n] - sum[t]): of token t, at the chunk's end
  float whole;                     // e^sum[n]
};

HWY_INLINE void SumDecays(const float* log_decay, int64_t stride, int64_t tokens, int64_t rows,
                          ChunkDecays* d) {
  double sum = 0.0;
  for (int64_t t = 0; t < rows; ++t) {
    if (t < tokens) {
      const float step = log_decay[t * stride];
      // A difference of infinities would be a NaN, and e^-1e30 is zero too.
      sum += step < -1e30f ? -1e30f : step;
    }
    d->sum[t] = sum;
    d->into[t] = static_cast<float>(sum);
  }
  for (int64_t t = 0; t < rows; ++t) d->out_of[t] = static_cast<float>(sum - d->sum[t]);
  ExpAll(rows, d->into);
  ExpAll(rows, d->out_of);
  d->whole = d->into[rows - 1];
}

// scores = product * e^(sum[t] - sum[s]) at and below the diagonal, zero above it up to the end of
// t's sub-chunk. Without decays the product alone.
HWY_INLINE void MaskedScores(const float* HWY_RESTRICT product, int64_t rows,
                             const ChunkDecays* decays, float* HWY_RESTRICT scores) {
  HWY_ALIGN float table[kChunk];
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t columns = (t / kSubChunk + 1) * kSubChunk;
    const float* from = product + t * kChunk;
    float* to = scores + t * kChunk;
    if (decays != nullptr) {
      for (int64_t s = 0; s < columns; ++s) {
        table[s] = s <= t ? static_cast<float>(decays->sum[t] - decays->sum[s]) : 0.0f;
      }
      ExpAll(columns, table);
      for (int64_t s = 0; s < columns; s += kLanes) {
        Store(hn::Mul(Load(from + s), Load(table + s)), to + s);
      }
    } else {
      std::memcpy(to, from, columns * sizeof(float));
    }
    std::fill(to + t + 1, to + columns, 0.0f);
  }
}

// y[i] = x[i] * factor, n may be any number.
HWY_INLINE void Scale(const float* HWY_RESTRICT x, float factor, int64_t n, float* HWY_RESTRICT y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * factor;
}

void ScalarChunkScoresSimd(const ScalarChunk& c, float* scratch) {
  const int64_t dk = c.dk;
  const int64_t rows = (c.tokens + kSubChunk - 1) / kSubChunk * kSubChunk;
  float* keys = scratch;                // (dk, kChunk)
  float* product = keys + dk * kChunk;  // (kChunk, kChunk)
  TransposeKeys(c.k, c.k_stride, dk, rows, keys);
  for (int64_t g = 0; g < c.queries; ++g) {
    const float* q = c.q + g * dk;
    QueryKeyProduct(q, c.q_stride, dk, rows, keys, product);
    for (int64_t state = 0; state < c.states; ++state) {
      ChunkDecays decays;
      const bool decaying = c.log_decay != nullptr;
      if (decaying) SumDecays(c.log_decay + state, c.decay_stride, c.tokens, rows, &decays);
      const int64_t head = state * c.queries + g;
      MaskedScores(product, rows, decaying ? &decays : nullptr, c.scores + head * kChunk * kChunk);
      float* q_decayed = c.q_decayed + head * kChunk * dk;
      for (int64_t t = 0; t < rows; ++t) {
        Scale(q + t * c.q_stride, decaying ? decays.into[t] : 1.0f, dk, q_decayed + t * dk);
      }
      if (g > 0) continue;
      std::fill_n(c.decay + state * dk, dk, decaying ? decays.whole : 1.0f);
      float* k_decayed = c.k_decayed + state * dk * kChunk;
      for (int64_t i = 0; i < dk; ++i) {
        for (int64_t s = 0; s < rows; s += kLanes) {
          const V key = Load(keys + i * kChunk + s);
          Store(decaying ? hn::Mul(key, Load(decays.out_of + s)) : key, k_decayed + i * kChunk + s);
        }
      }
    }
  }
}

// ---- The normaliser ----

// Sum of n floats, a multiple of 16.
HWY_INLINE float Sum(const float* x, int64_t n) {
  V sum = Zero();
  for (int64_t i = 0; i < n; i += kLanes) sum = hn::Add(sum, Load(x + i));
  return SumLanes(sum);
}

void NormaliserRecurrentSimd(const LinearRecurrentArgs& a, float log_decay, float* z, float* den) {
  const StepDecay decay(log_decay);
  for (int64_t i = 0; i < a.dk; ++i) {
    z[i] = (decay.near_one ? z[i] + z[i] * decay.factor : z[i] * decay.factor) + a.k[i];
  }
  for (int64_t g = 0; g < a.groups; ++g) den[g] = Dot(a.q + g * a.q_stride, z, a.dk);
}

void NormaliserChunkSimd(const LinearChunk& c, float* z, float* den) {
  const int64_t rows = (c.tokens + kSubChunk - 1) / kSubChunk * kSubChunk;
  for (int64_t g = 0; g < c.groups; ++g) {
    for (int64_t t = 0; t < c.tokens; ++t) {
      const int64_t row = g * kChunk + t;
      den[row] = Dot(c.q_decayed + row * c.dk, z, c.dk) +
                 Sum(c.scores + row * kChunk, (t / kSubChunk + 1) * kSubChunk);
    }
  }
  for (int64_t i = 0; i < c.dk; ++i) {
    z[i] = c.decay[i] * z[i] + Sum(c.k_decayed + i * kChunk, rows);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice {
namespace {

HWY_EXPORT(ScalarRecurrentSimd);
HWY_EXPORT(ScalarChunkScoresSimd);
HWY_EXPORT(NormaliserRecurrentSimd);
HWY_EXPORT(NormaliserChunkSimd);

}  // namespace

void ScalarRecurrent(const LinearRecurrentArgs& args, float log_decay) {
  HWY_DYNAMIC_DISPATCH(ScalarRecurrentSimd)(args, log_decay);
}

int64_t ScalarChunkScratch(int64_t dk) { return (dk + kChunk) * kChunk; }

void ScalarChunkScores(const ScalarChunk& chunk, float* scratch) {
  HWY_DYNAMIC_DISPATCH(ScalarChunkScoresSimd)(chunk, scratch);
}

void NormaliserRecurrent(const LinearRecurrentArgs& args, float log_decay, float* z, float* den) {
  HWY_DYNAMIC_DISPATCH(NormaliserRecurrentSimd)(args, log_decay, z, den);
}

void NormaliserChunk(const LinearChunk& chunk, float* z, float* den) {
  HWY_DYNAMIC_DISPATCH(NormaliserChunkSimd)(chunk, z, den);
}

}  // namespace sluice
#endif  // HWY_ONCE
