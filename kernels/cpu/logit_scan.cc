#include "kernels/cpu/logit_scan.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/logit_scan.cc"
#include "hwy/foreach_target.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice {
namespace HWY_NAMESPACE {

LogitSummary SummarizeSimd(const float* logits, int64_t n) {
  V max = Splat(-std::numeric_limits<float>::infinity());
  auto nan = hn::IsNaN(max);
  for (int64_t i = 0; i < n; i += kLanes) {
    const V x = Load(logits + i);
    nan = hn::Or(nan, hn::IsNaN(x));
    max = hn::Max(max, x);
  }
  LogitSummary summary;
  summary.has_nan = !hn::AllFalse(D(), nan);
  summary.max = hn::GetLane(hn::MaxOfLanes(D(), max));
  const V target = Splat(summary.max);
  for (int64_t i = 0; i < n && !summary.has_nan; i += kLanes) {
    const auto first = hn::FindFirstTrue(D(), hn::Eq(Load(logits + i), target));
    if (first >= 0) {
      summary.argmax = static_cast<int32_t>(i + first);
      break;
    }
  }
  return summary;
}

double SumExpSimd(const float* logits, int64_t n, float max) {
  const V shift = Splat(max);
  double total = 0.0;
  for (int64_t block = 0; block < n; block += kSumBlock) {
    V sum = Zero();
    const int64_t end = std::min(block + kSumBlock, n);
    for (int64_t i = block; i < end; i += kLanes) {
      sum = hn::Add(sum, Exp(D(), hn::Sub(Load(logits + i), shift)));
    }
    total += static_cast<double>(SumLanes(sum));
  }
  return total;
}

void SoftmaxWeightsSimd(const float* logits, int64_t n, float max, float temperature,
                        float* weights, float* block_sums) {
  const V shift = Splat(max), divisor = Splat(temperature);
  for (int64_t block = 0; block < n; block += kSumBlock) {
    V sum = Zero();
    const int64_t end = std::min(block + kSumBlock, n);
    for (int64_t i = block; i < end; i += kLanes) {
      const V weight = Exp(D(), hn::Div(hn::Sub(Load(logits + i), shift), divisor));
      Store(weight, weights + i);
      sum = hn::Add(sum, weight);
    }
    *block_sums++ = SumLanes(sum);
  }
}

void SumBlocksSimd(const float* weights, int64_t n, float* block_sums) {
  for (int64_t block = 0; block < n; block += kSumBlock) {
    V sum = Zero();
    const int64_t end = std::min(block + kSumBlock, n);
    for (int64_t i = block; i < end; i += kLanes) sum = hn::Add(sum, Load(weights + i));
    *block_sums++ = SumLanes(sum);
  }
}

int64_t CountBeforeSimd(const float* logits, int64_t n, int32_t id) {
  const V target = Splat(logits[id]);
  int64_t count = 0;
  int64_t i = 0;
  for (; i + kLanes <= id; i += kLanes) {
    count += static_cast<int64_t>(hn::CountTrue(D(), hn::Ge(Load(logits + i), target)));
  }
  for (const int64_t end = i + kLanes; i < end && i < n; ++i) {
    count += logits[i] > logits[id] || (logits[i] == logits[id] && i < id) ? 1 : 0;
  }
  for (; i < n; i += kLanes) {
    count += static_cast<int64_t>(hn::CountTrue(D(), hn::Gt(Load(logits + i), target)));
  }
  return count;
}

int64_t CollectGreaterSimd(const float* x, int64_t n, float threshold, int64_t* position,
                           int32_t* ids, int64_t capacity) {
  const V bound = Splat(threshold);
  int64_t count = 0;
  int64_t i = *position;
  for (; i < n && capacity - count >= 16; i += kLanes) {
    if (hn::AllFalse(D(), hn::Gt(Load(x + i), bound))) continue;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      ids[count] = static_cast<int32_t>(i + lane);
      count += x[i + lane] > threshold ? 1 : 0;
    }
  }
  *position = i;
  return count;
}

}  // namespace HWY_NAMESPACE
}  // namespace sluice
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice {
namespace {

HWY_EXPORT(SummarizeSimd);
HWY_EXPORT(SumExpSimd);
HWY_EXPORT(SoftmaxWeightsSimd);
HWY_EXPORT(SumBlocksSimd);
HWY_EXPORT(CountBeforeSimd);
HWY_EXPORT(CollectGreaterSimd);

}  // namespace

LogitSummary Summarize(const float* logits, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(SummarizeSimd)(logits, n);
}

double SumExp(const float* logits, int64_t n, float max) {
  return HWY_DYNAMIC_DISPATCH(SumExpSimd)(logits, n, max);
}

void SoftmaxWeights(const float* logits, int64_t n, float max, float temperature, float* weights,
                    float* block_sums) {
  HWY_DYNAMIC_DISPATCH(SoftmaxWeightsSimd)(logits, n, max, temperature, weights, block_sums);
}

void SumBlocks(const float* weights, int64_t n, float* block_sums) {
  HWY_DYNAMIC_DISPATCH(SumBlocksSimd)(weights, n, block_sums);
}

int64_t CountBefore(const float* logits, int64_t n, int32_t id) {
  return HWY_DYNAMIC_DISPATCH(CountBeforeSimd)(logits, n, id);
}

int64_t CollectGreater(const float* x, int64_t n, float threshold, int64_t* position, int32_t* ids,
                       int64_t capacity) {
  return HWY_DYNAMIC_DISPATCH(CollectGreaterSimd)(x, n, threshold, position, ids, capacity);
}

}  // namespace sluice
#endif  // HWY_ONCE
