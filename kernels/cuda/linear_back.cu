// The end of a generic linear mixer for prompt rows, in place: a warp for each span of columns that
// are normed together, a block for a span that is wide. A thread asks for all that it needs of a
// row before it uses any of it.
#include "kernels/cuda/linear_back.cuh"

namespace sluice::cuda {
namespace {

constexpr int kMostHeld = 4;  // of eight columns, of a thread

// A span of one row, by a team of kTeam threads that hold kHeld eights of its columns each.
template <int kTeam, int kHeld>
class HeldSpan {
 public:
  __device__ __forceinline__ HeldSpan(const LinearArgs& a, const LinearBack& b,
                                      const float* denominators, int64_t row, int span)
      : a_(a), b_(b), first_(span * b.norm_span), rank_(threadIdx.x % kTeam) {
    out_ = b.out + row * b.out_stride;
    const bf16* gate = b.in + row * b.in_stride + b.gate_offset;
    const bf16* values = a.prompt_front + row * a.front_stride + a.v_offset;
    wide_gate_ = b.wide_gate == nullptr ? nullptr : b.wide_gate + row * a.out_heads * a.dv;
    const bool gated = b.gate != BackGate::kNone && b.wide_gate == nullptr;
    const int sharers = a.out_heads / a.v_heads;
    uint4 o[kHeld], v[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int c = Column(i);
      const bool in = Holds(i);
      o[i] = in ? __ldcs(reinterpret_cast<const uint4*>(out_ + c)) : make_uint4(0, 0, 0, 0);
      gates_[i] = in && gated ? LoadStream(gate + c) : make_uint4(0, 0, 0, 0);
      if (b.skip == nullptr) continue;
      const int head = c / a.dv;
      v[i] = in ? LoadStream(values + head / sharers * a.dv + c - head * a.dv)
                : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int c = Column(i);
      x_[i] = Unpack(o[i]);
      if (!Holds(i)) continue;
      if (denominators != nullptr) {
        const float d = 1.0f / (denominators[row * a.out_heads + c / a.dv] + 1e-10f);
#pragma unroll
        for (int j = 0; j < 8; ++j) x_[i].at[j] *= d;
      }
      if (b.skip != nullptr) {
        const Eight value = Unpack(v[i]);
        const float* skip = b.skip + (b.skip_channels ? c : c / a.dv);
#pragma unroll
        for (int j = 0; j < 8; ++j)
          x_[i].at[j] = fmaf(skip[b.skip_channels ? j : 0], value.at[j], x_[i].at[j]);
      }
      if (b.gate_first) Gate(i);
    }
  }

  // partial (kBackWarps) in shared memory.
  __device__ __forceinline__ void Finish(float* partial) {
    float mean = 0.0f, scale = 1.0f;
    const float width = static_cast<float>(b_.norm_span);
    if (b_.norm == BackNorm::kLayer) {
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) sum += x_[i].at[j];  // zeros past the span
      }
      mean = TeamSum<kTeam>(sum, partial) / width;
    }
    if (b_.norm != BackNorm::kNone) {
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const float x = Holds(i) ? x_[i].at[j] - mean : 0.0f;
          sum = fmaf(x, x, sum);
        }
      }
      scale = rsqrtf(TeamSum<kTeam>(sum, partial) / width + b_.eps);
    }
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (Holds(i)) Store(i, mean, scale);
    }
  }

 private:
  __device__ __forceinline__ int Column(int i) const { return first_ + (i * kTeam + rank_) * 8; }
  __device__ __forceinline__ bool Holds(int i) const {
    return (i * kTeam + rank_) * 8 < b_.norm_span;
  }
  __device__ __forceinline__ void Gate(int i) {
    if (b_.gate == BackGate::kNone) return;
    const Eight g = wide_gate_ != nullptr ? LoadEight(wide_gate_ + Column(i)) : Unpack(gates_[i]);
#pragma unroll
    for (int j = 0; j < 8; ++j) x_[i].at[j] *= BackGateOf(b_.gate, g.at[j]);
  }
  __device__ __forceinline__ void Store(int i, float mean, float scale) {
    const int c = Column(i), in_weights = b_.weight_width == b_.norm_span ? c - first_ : c;
    Eight& x = x_[i];
#pragma unroll
    for (int j = 0; j < 8; ++j) x.at[j] = (x.at[j] - mean) * scale;
    if (b_.norm_weight != nullptr) {
      const Eight w = LoadEight(b_.norm_weight + in_weights);
#pragma unroll
      for (int j = 0; j < 8; ++j) x.at[j] *= w.at[j];
    }
    if (b_.norm_bias != nullptr) {
      const Eight w = LoadEight(b_.norm_bias + in_weights);
#pragma unroll
      for (int j = 0; j < 8; ++j) x.at[j] += w.at[j];
    }
    if (!b_.gate_first) Gate(i);
    *reinterpret_cast<uint4*>(out_ + c) = Pack(x);
  }

  const LinearArgs& a_;
  const LinearBack& b_;
  const int first_, rank_;
  bf16* out_;
  const float* wide_gate_;
  Eight x_[kHeld];
  uint4 gates_[kHeld];
};

template <int kTeam, int kHeld>
__global__ void __launch_bounds__(kBackThreads)
    HeldSpansKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBack b,
                    const float* denominators, int first, int items) {
  __shared__ float partial[kBackWarps];
  WaitForPredecessor();
  constexpr int kTeams = kBackThreads / kTeam;
  const int item = blockIdx.x * kTeams + threadIdx.x / kTeam;
  if (item >= items) return;
  const int spans = a.out_heads * a.dv / b.norm_span, i = item / spans;
  HeldSpan<kTeam, kHeld> span(a, b, denominators, first + i, item - i * spans);
  span.Finish(partial);
}

// Spans that no team holds, a block a row.
__global__ void __launch_bounds__(kBackThreads)
    WideSpansKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBack b,
                    const float* denominators, int first) {
  __shared__ float partial[kBackWarps];
  WaitForPredecessor();
  const int64_t row = first + blockIdx.x;
  BackRow<bf16, bf16>(a, b, row, b.out + row * b.out_stride, a.prompt_front + row * a.front_stride,
                      denominators == nullptr ? nullptr : denominators + row * a.out_heads)
      .Run(partial);
}

template <int kTeam, int kHeld>
cudaError_t LaunchHeld(const LinearArgs& a, const LinearBack& b, const float* denominators,
                       int first, int rows, cudaStream_t stream) {
  const int64_t items = int64_t{rows} * a.out_heads * a.dv / b.norm_span;
  constexpr int kTeams = kBackThreads / kTeam;
  return Launch(HeldSpansKernel<kTeam, kHeld>, static_cast<unsigned>((items + kTeams - 1) / kTeams),
                kBackThreads, 0, stream, 1, a, b, denominators, first, static_cast<int>(items));
}

}  // namespace

cudaError_t LaunchLinearBack(const LinearArgs& args, const LinearBack& back,
                             const LinearBuffers& buffers, int first, int rows,
                             cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const float* denominators = args.normalisers == nullptr ? nullptr : buffers.denominators;
  LinearBack b = back;
  if (b.norm == BackNorm::kNone) b.norm_span = args.dv;  // any number does
  const int eights = b.norm_span / 8;
  if (eights <= 32) return LaunchHeld<32, 1>(args, b, denominators, first, rows, stream);
  if (eights <= 64) return LaunchHeld<32, 2>(args, b, denominators, first, rows, stream);
  if (eights <= 256) return LaunchHeld<kBackThreads, 1>(args, b, denominators, first, rows, stream);
  if (eights <= 512) return LaunchHeld<kBackThreads, 2>(args, b, denominators, first, rows, stream);
  if (eights <= kMostHeld * kBackThreads)
    return LaunchHeld<kBackThreads, kMostHeld>(args, b, denominators, first, rows, stream);
  return Launch(WideSpansKernel, static_cast<unsigned>(rows), kBackThreads, 0, stream, 1, args, b,
                denominators, first);
}

}  // namespace sluice::cuda
