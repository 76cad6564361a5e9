// The softmax core, o = sum_s softmax_s(q k_s) v_s over the tokens that a row sees, by blocks of
// keys as in FlashAttention (arXiv 2205.14135). A row holds
//   max  the largest of its scores so far
//   sum  the sum of e^(score - max)
//   acc  the sum of e^(score - max) v
// and takes one block after another, in the order of their positions.
//
// Blocks are kKeyBlock positions long and begin at its multiples, counted from the sequence's first
// token. What a row computes of a block depends on the row and the block alone, so it does not
// depend on which other rows are computed with it, nor on where keys and values lie.
#ifndef SLUICE_KERNELS_CPU_CORE_SOFTMAX_H_
#define SLUICE_KERNELS_CPU_CORE_SOFTMAX_H_

#include <cstdint>

namespace sluice {

inline constexpr int64_t kKeyBlock = 64;

// Keys and values of one head of k and v at kKeyBlock positions. Those that no row sees may be
// null.
struct KeyBlock {
  const float* k[kKeyBlock];  // (dk)
  const float* v[kKeyBlock];  // (dv)
};

// A row's query and what it sees of the block at hand: keys [begin, end) of it.
struct QueryRow {
  const float* q = nullptr;  // (dk), scaled
  int32_t begin = 0;
  int32_t end = 0;
};

// Rows that read the same head of k and v.
struct SoftmaxRows {
  int64_t dk = 0;
  int64_t dv = 0;
  int64_t rows = 0;
  const QueryRow* queries = nullptr;  // (rows)
  float* max = nullptr;               // (rows), -infinity before the first block
  float* sum = nullptr;               // (rows), 0 before the first block
  float* acc = nullptr;               // (rows, PaddedCols(dv)), zeros before the first block
};

// Floats of scratch that TakeBlock needs for at most `rows` rows.
int64_t SoftmaxScratch(int64_t rows, int64_t dk);

// Takes all rows through one block. `prompt`: the order of summation of prompt rows, which pays
// where many rows read a block; else that of decode rows.
void TakeBlock(const SoftmaxRows& rows, const KeyBlock& block, bool prompt, float* scratch);

// What rows that took different blocks have together: `parts` of them, in the order of their
// blocks, give one. max (parts), sum (parts), acc (parts, stride) -> o (dv).
void MergeParts(int64_t parts, const float* max, int64_t max_stride, const float* sum,
                int64_t sum_stride, const float* acc, int64_t acc_stride, int64_t dv, float* o);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_CORE_SOFTMAX_H_
