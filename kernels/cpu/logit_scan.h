// Passes over one row of logits or weights, padded with -infinity (weights: zeros) to whole lines
// of 16 floats. Sums run in an order fixed by the length alone. Ties go to the lower id.
#ifndef SLUICE_KERNELS_CPU_LOGIT_SCAN_H_
#define SLUICE_KERNELS_CPU_LOGIT_SCAN_H_

#include <cstdint>

namespace sluice {

// Tokens whose weights are first summed together, in fp32; the sums of blocks are added in fp64.
inline constexpr int64_t kSumBlock = 256;

struct LogitSummary {
  bool has_nan = false;
  float max = 0.0f;
  int32_t argmax = 0;
};
LogitSummary Summarize(const float* logits, int64_t n);

// sum of exp(logit - max)
double SumExp(const float* logits, int64_t n, float max);

// weights[i] = exp((logits[i] - max) / temperature), and the sum of each block of kSumBlock.
void SoftmaxWeights(const float* logits, int64_t n, float max, float temperature, float* weights,
                    float* block_sums);

// The sum of each block of kSumBlock weights.
void SumBlocks(const float* weights, int64_t n, float* block_sums);

// The number of logits that rank before token `id`: greater, or equal and lower in id.
int64_t CountBefore(const float* logits, int64_t n, int32_t id);

// Appends to `ids` each i in [*position, n) with x[i] > threshold, in order, until fewer than 16 of
// `capacity` are free. Returns how many; *position is where it stopped.
int64_t CollectGreater(const float* x, int64_t n, float threshold, int64_t* position, int32_t* ids,
                       int64_t capacity);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_LOGIT_SCAN_H_
