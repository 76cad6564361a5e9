// One row of the softmax core by plain fp32 arithmetic, for heads of any width: a block takes the
// query heads that share keys through blocks of keys, one after another.
#ifndef SLUICE_KERNELS_CUDA_SOFTMAX_ROW_CUH_
#define SLUICE_KERNELS_CUDA_SOFTMAX_ROW_CUH_

#include <cmath>

#include "kernels/cuda/softmax_keys.cuh"

namespace sluice::cuda {

inline constexpr int kRowThreads = 128;  // two a key of a block
static_assert(kRowThreads == 2 * kPageTokens);

// kGroup queries, kColumns columns of the values a thread.
template <int kGroup, int kColumns>
struct RowShared {
  float q[kGroup][kMostHeadWidth];
  float weights[kGroup][kPageTokens];
  float factor[kGroup], max[kGroup], sum[kGroup];
};

template <int kGroup, int kColumns>
class RowAttention {
 public:
  using Shared = RowShared<kGroup, kColumns>;

  // Query heads [first, first + count) of row `row` of the step, whose token is at `position`.
  __device__ RowAttention(const SoftmaxArgs& a, const Keys& keys, int64_t row, int64_t position,
                          int first, int count, Shared* shared)
      : a_(a), keys_(keys), shared_(*shared), position_(position) {
    const bf16* q = a.front + row * a.front_stride + first * a.dk;
    for (int i = threadIdx.x; i < kGroup * a.dk; i += kRowThreads) {
      const int g = i / a.dk;
      shared_.q[g][i - g * a.dk] = g < count ? __bfloat162float(q[i]) * a.scale * kLog2E : 0.0f;
    }
    if (threadIdx.x < kGroup) {
      shared_.max[threadIdx.x] = -INFINITY;
      shared_.sum[threadIdx.x] = 0.0f;
    }
    __syncthreads();
  }

  // Every `stride`-th block of keys that the row sees, from the block with number `phase` modulo
  // `stride` on.
  __device__ void Run(int phase, int stride) {
    const int64_t seen = FirstSeen(a_, position_), last = position_ / kPageTokens;
    int64_t block = seen / kPageTokens;
    block += (phase - static_cast<int>(block % stride) + stride) % stride;
    for (; block <= last; block += stride) Take(block, seen);
  }

  __device__ __forceinline__ float Max(int g) const { return shared_.max[g]; }
  __device__ __forceinline__ float Sum(int g) const { return shared_.sum[g]; }
  // Column threadIdx.x + i * kRowThreads of query g's sum of values.
  __device__ __forceinline__ float Value(int g, int i) const { return acc_[g][i]; }

 private:
  __device__ void Take(int64_t block, int64_t seen) {
    const int64_t first = block * kPageTokens;
    const int begin = static_cast<int>(max(seen - first, int64_t{0}));
    const int end = static_cast<int>(min(position_ + 1 - first, int64_t{kPageTokens}));
    Score(first, begin, end);
    __syncthreads();
    for (int g = threadIdx.x / 32; g < kGroup; g += kRowThreads / 32) Weigh(g);
    __syncthreads();
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) acc_[g][i] *= shared_.factor[g];
    }
#pragma unroll 4
    for (int key = begin; key < end; ++key) {
      const HeadAt value = keys_.ValueAt(first + key);
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        const int c = threadIdx.x + i * kRowThreads;
        const float v = c < a_.dv ? value.At(c) : 0.0f;
#pragma unroll
        for (int g = 0; g < kGroup; ++g) acc_[g][i] = fmaf(shared_.weights[g][key], v, acc_[g][i]);
      }
    }
    __syncthreads();
  }

  // Two threads a key.
  __device__ void Score(int64_t first, int begin, int end) {
    const int key = threadIdx.x / 2, half = threadIdx.x % 2;
    const bool there = key >= begin && key < end;
    float sum[kGroup] = {};
    if (there) {
      const HeadAt at = keys_.KeyAt(first + key);
      for (int i = half; i < a_.dk; i += 2) {
        const float k = at.At(i);
#pragma unroll
        for (int g = 0; g < kGroup; ++g) sum[g] = fmaf(k, shared_.q[g][i], sum[g]);
      }
    }
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      sum[g] += __shfl_xor_sync(0xffffffffu, sum[g], 1);
      if (half == 0) shared_.weights[g][key] = there ? sum[g] : -INFINITY;
    }
  }

  // A warp a query: scores become weights.
  __device__ void Weigh(int g) {
    const int lane = threadIdx.x % 32;
    float* w = shared_.weights[g];
    const float before = shared_.max[g], low = w[lane], high = w[lane + 32];
    float largest = fmaxf(low, high);
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, d));
    largest = fmaxf(largest, before);
    const float first = Exp2(low - largest), second = Exp2(high - largest);
    w[lane] = first;
    w[lane + 32] = second;
    const float total = WarpSum(first + second), factor = Exp2(before - largest);
    __syncwarp();  // every lane has read the maximum
    if (lane == 0) {
      shared_.factor[g] = factor;
      shared_.max[g] = largest;
      shared_.sum[g] = fmaf(shared_.sum[g], factor, total);
    }
  }

  const SoftmaxArgs& a_;
  const Keys& keys_;
  Shared& shared_;
  const int64_t position_;
  float acc_[kGroup][kColumns] = {};
};

// Calls `launch` with the template parameters that the heads need.
template <class LaunchOf>
cudaError_t ForRowShape(const SoftmaxArgs& a, LaunchOf launch) {
  const int groups = a.q_heads / a.kv_heads;
  const auto columns = [&]<int kGroup>() {
    return a.dv <= kRowThreads ? launch.template operator()<kGroup, 1>()
                               : launch.template operator()<kGroup, kMostHeadWidth / kRowThreads>();
  };
  return groups == 1   ? columns.template operator()<1>()
         : groups <= 4 ? columns.template operator()<4>()
                       : columns.template operator()<8>();
}

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_SOFTMAX_ROW_CUH_
