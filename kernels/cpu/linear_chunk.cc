#include "kernels/cpu/linear_chunk.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/linear_chunk.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu/chunk_tiles-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

// x[i] *= y[i], n may be any number.
HWY_INLINE void Multiply(const float* HWY_RESTRICT y, int64_t n, float* HWY_RESTRICT x) {
  for (int64_t i = 0; i < n; ++i) x[i] *= y[i];
}

// Token t joins its sub-chunk: earlier columns of `keys` decay by alpha_t, column t becomes k_t.
// Row i of `keys` is (16), columns of tokens that have not come are zero.
HWY_INLINE void JoinSubChunk(const float* alpha, const float* k, int64_t column, int64_t dk,
                             float* keys) {
  HWY_ALIGN float unit[16] = {};
  unit[column] = 1.0f;
  for (int64_t i = 0; i < dk; ++i) {
    for (int64_t v = 0; v < kVecs; ++v) {
      float* p = keys + i * kChunk + v * kLanes;
      const V joined = hn::Mul(Load(unit + v * kLanes), Splat(k[i]));
      Store(hn::MulAdd(Load(p), Splat(alpha[i]), joined), p);
    }
  }
}

// scores (16) = q (dk) times keys (dk, 16), by four interleaved chains.
HWY_INLINE void DiagonalRow(const float* q, const float* keys, int64_t dk, float* scores) {
  V sum[4][kVecs];
  for (auto& chain : sum) {
    for (int64_t v = 0; v < kVecs; ++v) chain[v] = Zero();
  }
  int64_t i = 0;
  for (; i + 4 <= dk; i += 4) {
    for (int64_t c = 0; c < 4; ++c) {
      for (int64_t v = 0; v < kVecs; ++v) {
        sum[c][v] =
            hn::MulAdd(Splat(q[i + c]), Load(keys + (i + c) * kChunk + v * kLanes), sum[c][v]);
      }
    }
  }
  for (; i < dk; ++i) {
    for (int64_t v = 0; v < kVecs; ++v) {
      sum[0][v] = hn::MulAdd(Splat(q[i]), Load(keys + i * kChunk + v * kLanes), sum[0][v]);
    }
  }
  for (int64_t v = 0; v < kVecs; ++v) {
    Store(hn::Add(hn::Add(sum[0][v], sum[1][v]), hn::Add(sum[2][v], sum[3][v])),
          scores + v * kLanes);
  }
}

// scores (16, 16) = q (16, dk) times keys (dk, 16).
HWY_INLINE void OffDiagonalBlock(const float* q, int64_t dk, const float* keys, float* scores) {
  for (int64_t t = 0; t < kSubChunk; t += kTileRows) {
    V acc[kTileRows][kVecs];
    ZeroRows(acc);
    Accumulate<kTileRows>(q + t * dk, dk, keys, kChunk, dk, acc);
    StoreRows<kTileRows>(acc, scores + t * kChunk, kChunk);
  }
}

void LinearChunkScoresSimd(const LinearChunk& c, float* scratch) {
  const int64_t dk = c.dk;
  const int64_t sub_chunks = (c.tokens + kSubChunk - 1) / kSubChunk;
  float* in_sub_chunk = scratch;       // (dk): decay from the sub-chunk's beginning through token t
  float* q_local = in_sub_chunk + dk;  // (groups, 16, dk): q_t times that
  std::fill_n(c.decay, dk,
              1.0f);  // until the end: decay from the chunk's beginning to the sub-chunk's
  std::memset(c.k_decayed, 0, dk * kChunk * sizeof(float));
  std::memset(c.scores, 0, c.groups * kChunk * kChunk * sizeof(float));
  for (int64_t block = 0; block < sub_chunks; ++block) {
    const int64_t first = block * kSubChunk;
    std::fill_n(in_sub_chunk, dk, 1.0f);
    for (int64_t t = first; t < first + kSubChunk; ++t) {
      const float* alpha = c.alpha + t * c.alpha_stride;
      Multiply(alpha, dk, in_sub_chunk);
      JoinSubChunk(alpha, c.k + t * c.k_stride, t - first, dk, c.k_decayed + first);
      for (int64_t g = 0; g < c.groups; ++g) {
        const float* q = c.q + t * c.q_stride + g * dk;
        DiagonalRow(q, c.k_decayed + first, dk, c.scores + (g * kChunk + t) * kChunk + first);
        float* local = q_local + (g * kSubChunk + t - first) * dk;
        float* decayed = c.q_decayed + (g * kChunk + t) * dk;
        for (int64_t i = 0; i < dk; ++i) {
          local[i] = q[i] * in_sub_chunk[i];
          decayed[i] = local[i] * c.decay[i];
        }
      }
    }
    for (int64_t g = 0; g < c.groups; ++g) {
      for (int64_t earlier = 0; earlier < first; earlier += kSubChunk) {
        OffDiagonalBlock(q_local + g * kSubChunk * dk, dk, c.k_decayed + earlier,
                         c.scores + (g * kChunk + first) * kChunk + earlier);
      }
    }
    for (int64_t i = 0; i < dk; ++i) {
      float* keys = c.k_decayed + i * kChunk;
      for (int64_t s = 0; s < first; s += kLanes) {
        Store(hn::Mul(Load(keys + s), Splat(in_sub_chunk[i])), keys + s);
      }
    }
    Multiply(in_sub_chunk, dk, c.decay);
  }
}

// One tile of o: what the state contributes, then the chunk's own tokens.
HWY_INLINE void OutputTile(const LinearChunk& c, int64_t group, int64_t t, int64_t col,
                           const float* state, int64_t state_stride) {
  V acc[kTileRows][kVecs];
  ZeroRows(acc);
  const int64_t row = group * kChunk + t;
  Accumulate<kTileRows>(c.q_decayed + row * c.dk, c.dk, state + col, state_stride, c.dk, acc);
  const int64_t sources = (t / kSubChunk + 1) * kSubChunk;
  Accumulate<kTileRows>(c.scores + row * kChunk, kChunk, c.v + col, c.v_stride, sources, acc);
  StoreRows<kTileRows>(acc, c.o + row * c.o_stride + col, c.o_stride);
}

void LinearChunkStateSimd(const LinearChunk& c, int64_t col_begin, int64_t col_end, float* state,
                          int64_t state_stride) {
  // Whole sub-chunks: the rows that pad them are zeros.
  const int64_t tokens = (c.tokens + kSubChunk - 1) / kSubChunk * kSubChunk;
  for (int64_t col = col_begin; col < col_end; col += 16) {
    for (int64_t group = 0; group < c.groups; ++group) {
      for (int64_t t = 0; t < tokens; t += kTileRows) {
        OutputTile(c, group, t, col, state, state_stride);
      }
    }
    UpdateState(c, c.v + col, c.v_stride, tokens, state + col, state_stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice {
namespace {

HWY_EXPORT(LinearChunkScoresSimd);
HWY_EXPORT(LinearChunkStateSimd);

}  // namespace

int64_t LinearChunkScratch(int64_t dk, int64_t groups) { return dk + groups * kSubChunk * dk; }

void LinearChunkScores(const LinearChunk& chunk, float* scratch) {
  HWY_DYNAMIC_DISPATCH(LinearChunkScoresSimd)(chunk, scratch);
}

void LinearChunkState(const LinearChunk& chunk, int64_t col_begin, int64_t col_end, float* state,
                      int64_t state_stride) {
  HWY_DYNAMIC_DISPATCH(LinearChunkStateSimd)(chunk, col_begin, col_end, state, state_stride);
}

}  // namespace sluice
#endif  // HWY_ONCE
