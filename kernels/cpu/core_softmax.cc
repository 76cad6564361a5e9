#include "kernels/cpu/core_softmax.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/core_softmax.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

// Rows of a register tile: enough chains to hide latency, few enough for the registers.
constexpr int64_t kTileRows = kLanes == 16 ? 8 : 4;
// Keys whose dot products run side by side.
constexpr int64_t kDotKeys = 4;

constexpr float kNothing = -std::numeric_limits<float>::infinity();

// The first `n` of p, zeros behind.
HWY_INLINE V LoadPart(const float* p, int64_t n) {
  HWY_ALIGN float all[kLanes] = {};
  std::copy_n(p, n, all);
  return Load(all);
}

// ---- Scores of decode rows: a sum over lanes for each key ----

HWY_INLINE void DotScores(const QueryRow& row, const KeyBlock& block, int64_t dk, float* scores) {
  for (int64_t s = row.begin; s < row.end; s += kDotKeys) {
    const int64_t keys = std::min<int64_t>(kDotKeys, row.end - s);
    const float* k[kDotKeys];
    for (int64_t j = 0; j < kDotKeys; ++j) k[j] = block.k[s + std::min(j, keys - 1)];
    V sum[kDotKeys];
    for (V& one : sum) one = Zero();
    int64_t i = 0;
    for (; i + kLanes <= dk; i += kLanes) {
      const V q = Load(row.q + i);
      for (int64_t j = 0; j < kDotKeys; ++j) sum[j] = hn::MulAdd(q, Load(k[j] + i), sum[j]);
    }
    if (i < dk) {
      const V q = LoadPart(row.q + i, dk - i);
      for (int64_t j = 0; j < kDotKeys; ++j) {
        sum[j] = hn::MulAdd(q, LoadPart(k[j] + i, dk - i), sum[j]);
      }
    }
    for (int64_t j = 0; j < keys; ++j) scores[s + j] = SumLanes(sum[j]);
  }
}

// ---- Scores of prompt rows: a product with the block's keys, one lane a key ----

// keys (dk, kKeyBlock), columns [begin, end).
HWY_INLINE void TransposeKeys(const KeyBlock& block, int64_t begin, int64_t end, int64_t dk,
                              float* HWY_RESTRICT keys) {
  constexpr int64_t kLine = 16;
  for (int64_t first = 0; first < dk; first += kLine) {
    const int64_t last = std::min(first + kLine, dk);
    for (int64_t s = begin; s < end; ++s) {
      const float* HWY_RESTRICT k = block.k[s];
      for (int64_t i = first; i < last; ++i) keys[i * kKeyBlock + s] = k[i];
    }
  }
}

// scores (rows rounded up to kTileRows, kKeyBlock), of which what lies in lines that hold
// [begin, end) is written.
HWY_INLINE void ProductScores(const SoftmaxRows& rows, int64_t begin, int64_t end,
                              const float* HWY_RESTRICT keys, float* HWY_RESTRICT scores) {
  for (int64_t t = 0; t < rows.rows; t += kTileRows) {
    const float* q[kTileRows];
    for (int64_t r = 0; r < kTileRows; ++r) {
      q[r] = rows.queries[std::min(t + r, rows.rows - 1)].q;
    }
    for (int64_t s = begin / 16 * 16; s < end; s += 16) {
      V acc[kTileRows][kVecs];
      for (auto& row : acc) {
        for (V& sum : row) sum = Zero();
      }
      for (int64_t i = 0; i < rows.dk; ++i) {
        V line[kVecs];
        for (int64_t v = 0; v < kVecs; ++v) line[v] = Load(keys + i * kKeyBlock + s + v * kLanes);
        for (int64_t r = 0; r < kTileRows; ++r) {
          const V x = Splat(q[r][i]);
          for (int64_t v = 0; v < kVecs; ++v) acc[r][v] = hn::MulAdd(x, line[v], acc[r][v]);
        }
      }
      for (int64_t r = 0; r < kTileRows; ++r) {
        for (int64_t v = 0; v < kVecs; ++v) {
          Store(acc[r][v], scores + (t + r) * kKeyBlock + s + v * kLanes);
        }
      }
    }
  }
}

// ---- From scores to weights, and values ----

// The row's scores become e^(score - max), zero where it sees nothing; max, sum and acc follow.
HWY_INLINE void Weigh(const QueryRow& row, int64_t acc_cols, float* HWY_RESTRICT scores, float* max,
                      float* sum, float* HWY_RESTRICT acc) {
  std::fill(scores, scores + row.begin, kNothing);
  std::fill(scores + row.end, scores + kKeyBlock, kNothing);
  float largest = *max;
  // A NaN among the scores is left out here, and is one among the weights.
  for (int64_t s = row.begin; s < row.end; ++s) largest = std::max(largest, scores[s]);
  const V center = Splat(largest);
  V total = Zero();
  for (int64_t s = 0; s < kKeyBlock; s += kLanes) {
    const V weight = Exp(D(), hn::Sub(Load(scores + s), center));
    Store(weight, scores + s);
    total = hn::Add(total, weight);
  }
  const V before = Exp(D(), Splat(*max - largest));
  *max = largest;
  *sum = hn::GetLane(hn::MulAdd(Splat(*sum), before, Splat(SumLanes(total))));
  for (int64_t i = 0; i < acc_cols; i += kLanes) Store(hn::Mul(Load(acc + i), before), acc + i);
}

// Columns [col, col + 16) of v, zeros behind dv.
HWY_INLINE void LoadValues(const float* v, int64_t col, int64_t dv, V (&line)[kVecs]) {
  for (int64_t c = 0; c < kVecs; ++c) {
    const int64_t at = col + c * kLanes;
    line[c] = at + kLanes <= dv ? Load(v + at) : at < dv ? LoadPart(v + at, dv - at) : Zero();
  }
}

// acc += weights v for keys [begin, end), one row.
HWY_INLINE void AddValues(const KeyBlock& block, int64_t begin, int64_t end, int64_t col,
                          int64_t dv, const float* weights, float* acc) {
  V sum[kVecs], line[kVecs];
  for (int64_t c = 0; c < kVecs; ++c) sum[c] = Load(acc + c * kLanes);
  for (int64_t s = begin; s < end; ++s) {
    LoadValues(block.v[s], col, dv, line);
    const V weight = Splat(weights[s]);
    for (int64_t c = 0; c < kVecs; ++c) sum[c] = hn::MulAdd(weight, line[c], sum[c]);
  }
  for (int64_t c = 0; c < kVecs; ++c) Store(sum[c], acc + c * kLanes);
}

// The same for kTileRows rows, which all see [begin, end).
HWY_INLINE void AddValuesToTile(const KeyBlock& block, int64_t begin, int64_t end, int64_t col,
                                int64_t dv, const float* HWY_RESTRICT weights,
                                float* HWY_RESTRICT acc, int64_t acc_stride) {
  V sum[kTileRows][kVecs], line[kVecs];
  for (int64_t r = 0; r < kTileRows; ++r) {
    for (int64_t c = 0; c < kVecs; ++c) sum[r][c] = Load(acc + r * acc_stride + c * kLanes);
  }
  for (int64_t s = begin; s < end; ++s) {
    LoadValues(block.v[s], col, dv, line);
    for (int64_t r = 0; r < kTileRows; ++r) {
      const V weight = Splat(weights[r * kKeyBlock + s]);
      for (int64_t c = 0; c < kVecs; ++c) sum[r][c] = hn::MulAdd(weight, line[c], sum[r][c]);
    }
  }
  for (int64_t r = 0; r < kTileRows; ++r) {
    for (int64_t c = 0; c < kVecs; ++c) Store(sum[r][c], acc + r * acc_stride + c * kLanes);
  }
}

// A key that a row does not see never meets its values, whatever they are: the rows of a tile take
// together what all of them see, and each takes the rest for itself. Keys keep their order.
HWY_INLINE void Accumulate(const SoftmaxRows& rows, const KeyBlock& block, const float* weights) {
  const int64_t stride = PaddedCols(rows.dv);
  for (int64_t t = 0; t < rows.rows; t += kTileRows) {
    const int64_t count = std::min(kTileRows, rows.rows - t);
    int64_t begin = 0, end = kKeyBlock;
    for (int64_t r = 0; r < count; ++r) {
      begin = std::max<int64_t>(begin, rows.queries[t + r].begin);
      end = std::min<int64_t>(end, rows.queries[t + r].end);
    }
    const bool together = count == kTileRows && begin < end;
    for (int64_t col = 0; col < stride; col += 16) {
      float* acc = rows.acc + t * stride + col;
      for (int64_t r = 0; r < count; ++r) {
        const QueryRow& row = rows.queries[t + r];
        AddValues(block, row.begin, together ? begin : row.end, col, rows.dv,
                  weights + (t + r) * kKeyBlock, acc + r * stride);
      }
      if (!together) continue;
      AddValuesToTile(block, begin, end, col, rows.dv, weights + t * kKeyBlock, acc, stride);
      for (int64_t r = 0; r < count; ++r) {
        AddValues(block, end, rows.queries[t + r].end, col, rows.dv, weights + (t + r) * kKeyBlock,
                  acc + r * stride);
      }
    }
  }
}

void TakeBlockSimd(const SoftmaxRows& rows, const KeyBlock& block, bool prompt, float* scratch) {
  float* scores = scratch;  // (rows rounded up, kKeyBlock)
  if (prompt) {
    int64_t begin = kKeyBlock, end = 0;
    for (int64_t r = 0; r < rows.rows; ++r) {
      if (rows.queries[r].begin >= rows.queries[r].end) continue;
      begin = std::min<int64_t>(begin, rows.queries[r].begin);
      end = std::max<int64_t>(end, rows.queries[r].end);
    }
    if (begin >= end) return;
    float* keys = scores + RoundUp(rows.rows, kTileRows) * kKeyBlock;
    TransposeKeys(block, begin, end, rows.dk, keys);
    ProductScores(rows, begin, end, keys, scores);
  }
  const int64_t stride = PaddedCols(rows.dv);
  for (int64_t r = 0; r < rows.rows; ++r) {
    const QueryRow& row = rows.queries[r];
    if (row.begin >= row.end) continue;
    float* of_row = scores + r * kKeyBlock;
    if (!prompt) DotScores(row, block, rows.dk, of_row);
    Weigh(row, stride, of_row, rows.max + r, rows.sum + r, rows.acc + r * stride);
  }
  Accumulate(rows, block, scores);
}

void MergePartsSimd(int64_t parts, const float* max, int64_t max_stride, const float* sum,
                    int64_t sum_stride, const float* acc, int64_t acc_stride, int64_t dv,
                    float* o) {
  float largest = kNothing;
  for (int64_t p = 0; p < parts; ++p) largest = std::max(largest, max[p * max_stride]);
  V total = Zero();
  for (int64_t p = 0; p < parts; ++p) {
    const V factor = Exp(D(), Splat(max[p * max_stride] - largest));
    total = hn::MulAdd(Splat(sum[p * sum_stride]), factor, total);
  }
  for (int64_t i = 0; i < dv; i += kLanes) {
    V value = Zero();
    for (int64_t p = 0; p < parts; ++p) {
      const V factor = Exp(D(), Splat(max[p * max_stride] - largest));
      value = hn::MulAdd(Load(acc + p * acc_stride + i), factor, value);
    }
    const V result = hn::Div(value, total);
    if (i + kLanes <= dv) {
      Store(result, o + i);
    } else {
      HWY_ALIGN float all[kLanes];
      Store(result, all);
      std::copy_n(all, dv - i, o + i);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice {
namespace {

HWY_EXPORT(TakeBlockSimd);
HWY_EXPORT(MergePartsSimd);

constexpr int64_t kLargestTile = 8;

}  // namespace

int64_t SoftmaxScratch(int64_t rows, int64_t dk) {
  return (RoundUp(rows, kLargestTile) + dk) * kKeyBlock;
}

void TakeBlock(const SoftmaxRows& rows, const KeyBlock& block, bool prompt, float* scratch) {
  HWY_DYNAMIC_DISPATCH(TakeBlockSimd)(rows, block, prompt, scratch);
}

void MergeParts(int64_t parts, const float* max, int64_t max_stride, const float* sum,
                int64_t sum_stride, const float* acc, int64_t acc_stride, int64_t dv, float* o) {
  HWY_DYNAMIC_DISPATCH(MergePartsSimd)
  (parts, max, max_stride, sum, sum_stride, acc, acc_stride, dv, o);
}

}  // namespace sluice
#endif  // HWY_ONCE
