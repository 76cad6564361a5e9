// The end of a generic linear mixer for one row, by one block: o / denominator, + skip * v, norm
// and gate. Sums are in an order that the shape alone fixes.
#ifndef SLUICE_KERNELS_CUDA_LINEAR_BACK_CUH_
#define SLUICE_KERNELS_CUDA_LINEAR_BACK_CUH_

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear.h"

namespace sluice::cuda {

inline constexpr int kBackThreads = 256;
inline constexpr int kBackWarps = kBackThreads / 32;

// Columns that are taken together; without a norm any number does.
__device__ __forceinline__ int BackSpan(const LinearArgs& a, const LinearBack& b) {
  return b.norm == BackNorm::kNone ? a.dv : b.norm_span;
}
__device__ __forceinline__ int BackSpans(const LinearArgs& a, const LinearBack& b) {
  return a.out_heads * a.dv / BackSpan(a, b);
}
// Spans of up to this many columns are a warp's, wider ones a block's.
inline constexpr int kWarpSpan = 512;
__device__ __forceinline__ bool BackSpansPerWarp(const LinearArgs& a, const LinearBack& b) {
  return BackSpan(a, b) <= kWarpSpan;
}

struct Eight {
  float at[8];
};

__device__ __forceinline__ Eight Unpack(uint4 v) {
  return {{LowBf16(v.x), HighBf16(v.x), LowBf16(v.y), HighBf16(v.y), LowBf16(v.z), HighBf16(v.z),
           LowBf16(v.w), HighBf16(v.w)}};
}
__device__ __forceinline__ uint4 Pack(const Eight& x) {
  return make_uint4(PackBf16(x.at[0], x.at[1]), PackBf16(x.at[2], x.at[3]),
                    PackBf16(x.at[4], x.at[5]), PackBf16(x.at[6], x.at[7]));
}
__device__ __forceinline__ Eight LoadEight(const bf16* p) {
  return Unpack(*reinterpret_cast<const uint4*>(p));
}
__device__ __forceinline__ Eight LoadEight(const float* p) {
  const float4 a = *reinterpret_cast<const float4*>(p), b = *reinterpret_cast<const float4*>(p + 4);
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
// Past L1: what other blocks of the grid wrote.
__device__ __forceinline__ Eight LoadEightOfOthers(const float* p) {
  const float4 a = __ldcg(reinterpret_cast<const float4*>(p)),
               b = __ldcg(reinterpret_cast<const float4*>(p + 4));
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
__device__ __forceinline__ Eight LoadEightOfOthers(const bf16* p) { return LoadEight(p); }

__device__ __forceinline__ float BackGateOf(BackGate gate, float x) {
  switch (gate) {
    case BackGate::kNone:
      return 1.0f;
    case BackGate::kRaw:
      return x;
    case BackGate::kSilu:
      return Silu(x);
    case BackGate::kSigmoid:
      return 1.0f / (1.0f + Exp2(-x * kLog2E));
  }
  return x;
}

// The sum over the threads of a team: a warp, or the block, which then passes barriers. partial
// (kBackWarps) in shared memory.
template <int kTeam>
__device__ __forceinline__ float TeamSum(float x, float* partial) {
  x = WarpSum(x);
  if constexpr (kTeam == 32) return x;
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  float total = 0.0f;
#pragma unroll
  for (int w = 0; w < kBackWarps; ++w) total += partial[w];
  return total;
}

// A row: O is what holds o, V what holds front's v.
template <class O, class V>
class BackRow {
 public:
  // `denominators` (out_heads) of the row, or null.
  __device__ BackRow(const LinearArgs& a, const LinearBack& b, int64_t row, const O* o,
                     const V* front, const float* denominators)
      : a_(a),
        b_(b),
        o_(o),
        v_(front + a.v_offset),
        denominators_(denominators),
        gate_(b.in + row * b.in_stride + b.gate_offset),
        wide_gate_(b.wide_gate == nullptr ? nullptr : b.wide_gate + row * a.out_heads * a.dv),
        out_(b.out + row * b.out_stride) {}

  // The whole row, by every thread of a block of kBackThreads. partial (kBackWarps) in shared
  // memory.
  __device__ void Run(float* partial) const {
    const int warp = threadIdx.x / 32;
    if (BackSpansPerWarp(a_, b_)) {
      for (int span = warp; span < BackSpans(a_, b_); span += kBackWarps) RunSpan(span);
    } else {
      for (int span = 0; span < BackSpans(a_, b_); ++span)
        Span<kBackThreads>(span * BackSpan(a_, b_), threadIdx.x, partial);
    }
  }
  // One span, by the calling warp, where BackSpansPerWarp.
  __device__ void RunSpan(int span) const {
    Span<32>(span * BackSpan(a_, b_), threadIdx.x % 32, nullptr);
  }

 private:
  // The values that the norm is of.
  __device__ __forceinline__ Eight Before(int c) const {
    Eight x = LoadEightOfOthers(o_ + c);
    const int head = c / a_.dv;
    if (denominators_ != nullptr) {
      const float d = 1.0f / (__ldcg(denominators_ + head) + 1e-10f);
#pragma unroll
      for (int i = 0; i < 8; ++i) x.at[i] *= d;
    }
    if (b_.skip != nullptr) {
      const Eight v = LoadEight(v_ + head / (a_.out_heads / a_.v_heads) * a_.dv + c % a_.dv);
#pragma unroll
      for (int i = 0; i < 8; ++i)
        x.at[i] = fmaf(b_.skip[b_.skip_channels ? c + i : head], v.at[i], x.at[i]);
    }
    if (b_.gate_first) Gate(c, &x);
    return x;
  }

  __device__ __forceinline__ void Gate(int c, Eight* x) const {
    if (b_.gate == BackGate::kNone) return;
    const Eight g = wide_gate_ != nullptr ? LoadEight(wide_gate_ + c) : LoadEight(gate_ + c);
#pragma unroll
    for (int i = 0; i < 8; ++i) x->at[i] *= BackGateOf(b_.gate, g.at[i]);
  }

  __device__ __forceinline__ void Store(int c, float mean, float scale) const {
    Eight x = Before(c);
#pragma unroll
    for (int i = 0; i < 8; ++i) x.at[i] = (x.at[i] - mean) * scale;
    if (b_.norm_weight != nullptr) {
      const Eight w = LoadEight(b_.norm_weight + c % b_.weight_width);
#pragma unroll
      for (int i = 0; i < 8; ++i) x.at[i] *= w.at[i];
    }
    if (b_.norm_bias != nullptr) {
      const Eight w = LoadEight(b_.norm_bias + c % b_.weight_width);
#pragma unroll
      for (int i = 0; i < 8; ++i) x.at[i] += w.at[i];
    }
    if (!b_.gate_first) Gate(c, &x);
    *reinterpret_cast<uint4*>(out_ + c) = Pack(x);
  }

  // The columns from `first` on that are normed together, by a team that holds thread `rank`.
  // Values are made anew for each sum and for the result: they are in L1, and registers for them
  // would cost more blocks a multiprocessor than that.
  template <int kTeam>
  __device__ __forceinline__ void Span(int first, int rank, float* partial) const {
    const int span = BackSpan(a_, b_);
    float mean = 0.0f, scale = 1.0f;
    if (b_.norm == BackNorm::kLayer) {
      float sum = 0.0f;
      for (int c = rank * 8; c < span; c += kTeam * 8) {
        const Eight x = Before(first + c);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += x.at[i];
      }
      mean = TeamSum<kTeam>(sum, partial) / static_cast<float>(span);
    }
    if (b_.norm != BackNorm::kNone) {
      float sum = 0.0f;
      for (int c = rank * 8; c < span; c += kTeam * 8) {
        const Eight x = Before(first + c);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum = fmaf(x.at[i] - mean, x.at[i] - mean, sum);
      }
      scale = rsqrtf(TeamSum<kTeam>(sum, partial) / static_cast<float>(span) + b_.eps);
    }
    for (int c = rank * 8; c < span; c += kTeam * 8) Store(first + c, mean, scale);
  }

  const LinearArgs& a_;
  const LinearBack& b_;
  const O* const o_;
  const V* const v_;
  const float* const denominators_;
  const bf16* const gate_;
  const float* const wide_gate_;
  bf16* const out_;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_LINEAR_BACK_CUH_
