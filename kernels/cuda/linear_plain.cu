// The generic linear core and its end for heads of any width, an element at a time: sizes that the
// other kernels' 16-byte accesses do not divide. A block takes 32 columns of a state through all
// tokens of its sequence in shared memory, in fp32, by the recurrence: a prompt's bits are those of
// its tokens one by one.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/linear_back.cuh"

namespace sluice::cuda {
namespace {

constexpr int kColumns = 32;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void Put(float x, float* to) { *to = x; }
__device__ __forceinline__ void Put(float x, bf16* to) { *to = __float2bfloat16_rn(x); }

// 32 columns of one state, in shared memory, and what its tokens do to them.
class PlainState {
 public:
  // shared: dk * kColumns and kThreads floats.
  __device__ PlainState(const LinearArgs& a, int slot, float* shared)
      : a_(a), state_(blockIdx.y), column_(blockIdx.x * kColumns + threadIdx.x % 32) {
    s_ = shared + threadIdx.x % 32;
    sums_ = shared + a.dk * kColumns;
    slot_ = a.states + slot * a.slot_stride + static_cast<int64_t>(state_) * a.dk * a.dv + column_;
    z_ = a.normalisers == nullptr
             ? nullptr
             : a.normalisers + slot * a.slot_stride + static_cast<int64_t>(state_) * a.dk;
    for (int key = threadIdx.x / 32; key < a.dk; key += kWarps)
      s_[key * kColumns] = column_ < a.dv ? slot_[static_cast<int64_t>(key) * a.dv] : 0.0f;
  }

  __device__ void Save() const {
    for (int key = threadIdx.x / 32; key < a_.dk && column_ < a_.dv; key += kWarps)
      slot_[static_cast<int64_t>(key) * a_.dv] = s_[key * kColumns];
  }

  // One row: S <- D S + k v^T, z likewise, then each output head's o (out_heads, dv) and
  // denominator (out_heads). `front` is the row's.
  template <class Front, class Out>
  __device__ void Take(int64_t row, const Front* front, Out* out, float* denominators) const {
    const int warp = threadIdx.x / 32, groups = a_.out_heads / a_.state_heads;
    const Front* k = front + a_.k_offset + state_ / (a_.state_heads / a_.k_heads) * a_.dk;
    const Front* v = front + a_.v_offset + state_ / (a_.state_heads / a_.v_heads) * a_.dv;
    const float scale =
        a_.key_scale == nullptr ? 1.0f : a_.key_scale[row * a_.state_heads + state_];
    const float value = column_ < a_.dv ? scale * ToFloat(v[column_]) : 0.0f;
    for (int key = warp; key < a_.dk; key += kWarps) {
      float* s = s_ + key * kColumns;
      *s = fmaf(ToFloat(k[key]), value, fmaf(*s, Loss(row, key), *s));
    }
    if (z_ != nullptr && blockIdx.x == 0 && warp == 0) {
      for (int key = threadIdx.x; key < a_.dk; key += 32)
        z_[key] = fmaf(ToFloat(k[key]), scale, fmaf(z_[key], Loss(row, key), z_[key]));
    }
    for (int g = 0; g < groups; ++g) {
      const int head = state_ * groups + g;
      const Front* q = front + head / (a_.out_heads / a_.q_heads) * a_.dk;
      float o = 0.0f;
      for (int key = warp; key < a_.dk; key += kWarps)
        o = fmaf(ToFloat(q[key]), s_[key * kColumns], o);
      sums_[threadIdx.x] = o;
      __syncthreads();
      if (warp == 0) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) sum += sums_[w * 32 + threadIdx.x];
        if (column_ < a_.dv) Put(sum, out + static_cast<int64_t>(head) * a_.dv + column_);
        if (z_ != nullptr && blockIdx.x == 0) Denominator(q, denominators + head);
      }
      __syncthreads();
    }
  }

 private:
  // D - 1 of a row.
  __device__ __forceinline__ float Loss(int64_t row, int key) const {
    switch (a_.decay) {
      case LinearDecay::kNone:
        return 0.0f;
      case LinearDecay::kConst:
        return expm1f(a_.log_decay[state_]);
      case LinearDecay::kHead:
        return expm1f(a_.log_decay[row * a_.state_heads + state_]);
      case LinearDecay::kKey:
        return expm1f(a_.log_decay[(row * a_.state_heads + state_) * a_.dk + key]);
    }
    return 0.0f;
  }
  template <class Front>
  __device__ __forceinline__ void Denominator(const Front* q, float* to) const {
    float sum = 0.0f;
    for (int key = threadIdx.x; key < a_.dk; key += 32) sum = fmaf(ToFloat(q[key]), z_[key], sum);
    sum = WarpSum(sum);
    if (threadIdx.x == 0) *to = sum;
  }

  const LinearArgs& a_;
  const int state_, column_;
  float* s_;  // of the thread's column: key after key, kColumns apart
  float* sums_;
  float* slot_;
  float* z_;
};

__global__ void __launch_bounds__(kThreads)
    PlainDecodeKernel(const __grid_constant__ LinearArgs a,
                      const __grid_constant__ LinearDecodeBuffers buffers) {
  extern __shared__ float shared[];
  WaitForPredecessor();
  const int row = blockIdx.z;
  if (row >= a.meta->num_decode) return;
  const RowMeta meta = MetaArray<RowMeta>(a.meta, a.meta->rows)[row];
  const PlainState state(a, meta.slot, shared);
  const int64_t outs = int64_t{row} * a.out_heads;
  state.Take(row, a.decode_front + row * a.front_stride, buffers.o + outs * a.dv,
             buffers.denominators + outs);
  state.Save();
}

// By the blocks of each segment's first chunk.
__global__ void __launch_bounds__(kThreads)
    PlainPromptKernel(const __grid_constant__ LinearArgs a, bf16* out, int64_t out_stride,
                      float* denominators, int first_chunk, int chunks) {
  extern __shared__ float shared[];
  WaitForPredecessor();
  const ChunkMeta* meta = MetaArray<ChunkMeta>(a.meta, a.meta->chunks) + first_chunk;
  int c = blockIdx.z;
  if (c > 0 && meta[c].offset != 0) return;
  const PlainState state(a, meta[c].slot, shared);
  for (bool more = true; more; ++c) {
    for (int token = 0; token < meta[c].tokens; ++token) {
      const int64_t row = static_cast<int64_t>(meta[c].row) + token;
      state.Take(row, a.prompt_front + row * a.front_stride, out + row * out_stride,
                 denominators + row * a.out_heads);
    }
    more = c + 1 < chunks && meta[c].last == 0;
  }
  state.Save();
}

// A row's end, by a block.
template <class O, class V>
__device__ void PlainEnd(const LinearArgs& a, const LinearBack& b, int64_t row, const O* o,
                         const V* front, const float* denominators, float* partial) {
  const int span = BackSpan(a, b), width = a.out_heads * a.dv;
  const bf16* gate = b.in + row * b.in_stride + b.gate_offset;
  const float* wide_gate = b.wide_gate == nullptr ? nullptr : b.wide_gate + row * width;
  bf16* out = b.out + row * b.out_stride;
  const auto factor = [&](int c) {
    return BackGateOf(b.gate, b.gate == BackGate::kNone ? 1.0f
                              : wide_gate != nullptr    ? wide_gate[c]
                                                        : ToFloat(gate[c]));
  };
  const auto value = [&](int c) {
    const int head = c / a.dv;
    float x = ToFloat(o[c]);
    if (denominators != nullptr) x /= denominators[head] + 1e-10f;
    if (b.skip != nullptr) {
      const int from = a.v_offset + head / (a.out_heads / a.v_heads) * a.dv + c - head * a.dv;
      x = fmaf(b.skip[b.skip_channels ? c : head], ToFloat(front[from]), x);
    }
    return b.gate_first ? x * factor(c) : x;
  };
  for (int first = 0; first < width; first += span) {
    float mean = 0.0f, scale = 1.0f, sum = 0.0f;
    if (b.norm == BackNorm::kLayer) {
      for (int c = threadIdx.x; c < span; c += kBackThreads) sum += value(first + c);
      mean = TeamSum<kBackThreads>(sum, partial) / static_cast<float>(span);
    }
    if (b.norm != BackNorm::kNone) {
      sum = 0.0f;
      for (int c = threadIdx.x; c < span; c += kBackThreads) {
        const float x = value(first + c) - mean;
        sum = fmaf(x, x, sum);
      }
      scale = rsqrtf(TeamSum<kBackThreads>(sum, partial) / static_cast<float>(span) + b.eps);
    }
    for (int c = first + threadIdx.x; c < first + span; c += kBackThreads) {
      float x = (value(c) - mean) * scale;
      if (b.norm_weight != nullptr) x *= b.norm_weight[c % b.weight_width];
      if (b.norm_bias != nullptr) x += b.norm_bias[c % b.weight_width];
      Put(b.gate_first ? x : x * factor(c), out + c);
    }
  }
}

__global__ void __launch_bounds__(kBackThreads)
    PlainDecodeEndKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBack b,
                         const __grid_constant__ LinearDecodeBuffers buffers) {
  __shared__ float partial[kBackWarps];
  WaitForPredecessor();
  const int64_t row = blockIdx.x;
  if (row >= a.meta->num_decode) return;
  PlainEnd(a, b, row, buffers.o + row * a.out_heads * a.dv, a.decode_front + row * a.front_stride,
           a.normalisers == nullptr ? nullptr : buffers.denominators + row * a.out_heads, partial);
}
__global__ void __launch_bounds__(kBackThreads)
    PlainPromptEndKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBack b,
                         const float* denominators, int first) {
  __shared__ float partial[kBackWarps];
  WaitForPredecessor();
  const int64_t row = first + blockIdx.x;
  PlainEnd(a, b, row, b.out + row * b.out_stride, a.prompt_front + row * a.front_stride,
           a.normalisers == nullptr ? nullptr : denominators + row * a.out_heads, partial);
}

size_t SharedBytes(const LinearArgs& a) {
  return (static_cast<size_t>(a.dk) * kColumns + kThreads) * sizeof(float);
}
cudaError_t MakeRoom(const void* kernel, const LinearArgs& a) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(SharedBytes(a)));
}

}  // namespace

cudaError_t LaunchPlainDecode(const LinearArgs& args, const LinearBack& back,
                              const LinearDecodeBuffers& buffers, int grid_rows,
                              cudaStream_t stream) {
  cudaError_t error = MakeRoom(reinterpret_cast<const void*>(PlainDecodeKernel), args);
  if (error != cudaSuccess) return error;
  const dim3 grid((args.dv + kColumns - 1) / kColumns, args.state_heads, grid_rows);
  error = Launch(PlainDecodeKernel, grid, kThreads, SharedBytes(args), stream, 1, args, buffers);
  if (error != cudaSuccess) return error;
  return LaunchPlainDecodeBack(args, back, buffers, grid_rows, stream);
}

cudaError_t LaunchPlainDecodeBack(const LinearArgs& args, const LinearBack& back,
                                  const LinearDecodeBuffers& buffers, int grid_rows,
                                  cudaStream_t stream) {
  return Launch(PlainDecodeEndKernel, grid_rows, kBackThreads, 0, stream, 1, args, back, buffers);
}

cudaError_t LaunchPlainPrompts(const LinearArgs& args, const LinearBack& back,
                               const LinearBuffers& buffers, std::span<const ChunkRange> waves,
                               int first, int rows, cudaStream_t stream) {
  cudaError_t error = MakeRoom(reinterpret_cast<const void*>(PlainPromptKernel), args);
  for (const ChunkRange& wave : waves) {
    if (error != cudaSuccess) return error;
    const dim3 grid((args.dv + kColumns - 1) / kColumns, args.state_heads, wave.chunks);
    error = Launch(PlainPromptKernel, grid, kThreads, SharedBytes(args), stream, 1, args, back.out,
                   back.out_stride, buffers.denominators, wave.first_chunk, wave.chunks);
  }
  if (error != cudaSuccess) return error;
  return LaunchPlainBack(args, back, buffers, first, rows, stream);
}

cudaError_t LaunchPlainBack(const LinearArgs& args, const LinearBack& back,
                            const LinearBuffers& buffers, int first, int rows,
                            cudaStream_t stream) {
  return Launch(PlainPromptEndKernel, rows, kBackThreads, 0, stream, 1, args, back,
                buffers.denominators, first);
}

}  // namespace sluice::cuda
