// The delta core for prompts, and for decode rows of heads of any width: token by token in fp32,
//   S <- D S,   u = beta (v - k S),   S <- S + k u^T,   o = q S
// A warp holds all keys of four columns of a state in registers and needs no other warp: eight
// lanes share a column. Tokens come through two stages of shared memory, one of which is filled
// while the other is read. As the recurrence is over tokens, no cut of a prompt changes a bit.
//
// The papers' chunk form (arXiv 2406.06484, section 3) needs half as many operations again if all
// of it is to stay in fp32; it pays where its products go to tensor cores.
#include <climits>

#include "kernels/cuda/delta.h"
#include "kernels/cuda/device.cuh"

namespace sluice::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kShare = 8;             // lanes that share a column
constexpr int kOfWarp = 32 / kShare;  // columns
constexpr int kColumns = kWarps * kOfWarp;

// Tokens of a stage, so that two stages of 512 keys fit the shared memory of any GPU.
template <int kRows>
constexpr int StageTokens() {
  return kRows <= 16 ? 16 : kRows <= 32 ? 8 : 4;
}

__device__ __forceinline__ void Put(float x, float* to) { *to = x; }
__device__ __forceinline__ void Put(float x, bf16* to) { *to = __float2bfloat16_rn(x); }

// kRows: keys of a lane. A stage is k | q | D - 1 of each key | v | beta | D - 1 of the head | o.
template <int kRows, bool kKey>
struct Stage {
  static constexpr int kKeys = kRows * kShare, kTokens = StageTokens<kRows>();
  static constexpr int kQ = kTokens * kKeys, kLoss = 2 * kQ, kV = kLoss + (kKey ? kQ : 0),
                       kBeta = kV + kTokens * kColumns, kHeadLoss = kBeta + kTokens,
                       kO = kHeadLoss + kTokens, kFloats = kO + kTokens * kColumns;
};

// Rows of a step that a warp copies, kWarps apart: a lane has 16 bytes of every 128 numbers, or one
// number of every 32 of a plain layer.
class RowCopies {
 public:
  __device__ __forceinline__ RowCopies(const float* first, int64_t stride, int count, bool plain)
      : from_(first + threadIdx.x / 32 * stride),
        step_(kWarps * stride),
        count_(count),
        plain_(plain) {}

  // The next row, to shared memory.
  template <int kMost>
  __device__ __forceinline__ void Copy(float* to) {
    const int lane = threadIdx.x % 32;
    const uint32_t shared = SharedAddress(to);
    if (plain_) {
#pragma unroll 1
      for (int i = lane; i < count_; i += 32) CopyAsync4(shared + i * 4, from_ + i);
    } else {
#pragma unroll
      for (int i = 0; i < kMost; i += 128) {
        const int at = i + lane * 4;
        if (at < count_) CopyAsync16(shared + at * 4, from_ + at, true);
      }
    }
    from_ += step_;
  }

 private:
  const float* from_;
  const int64_t step_;
  const int count_;
  const bool plain_;
};

// The block's columns of one state, and the tokens that take them on.
template <int kRows, bool kKey>
class Recurrence {
 public:
  using At = Stage<kRows, kKey>;

  // Rows of the step from `row` on. shared: two stages.
  __device__ Recurrence(const DeltaArgs& args, int slot, int64_t row, float* shared)
      : a_(args.layer),
        shared_(shared),
        head_(blockIdx.y),
        first_column_(blockIdx.x * kColumns),
        row_(row),
        keys_(KeysOf(args, a_.k_offset)),
        queries_(KeysOf(args, 0)),
        losses_(args.loss + (row * a_.state_heads + head_) * a_.dk, a_.state_heads * a_.dk, a_.dk,
                a_.plain),
        values_(
            a_.decode_front + row * a_.front_stride + a_.v_offset + head_ * a_.dv + first_column_,
            a_.front_stride, min(kColumns, a_.dv - first_column_), a_.plain) {
    const int lane = threadIdx.x % 32;
    share_ = lane / kOfWarp;
    of_block_ = threadIdx.x / 32 * kOfWarp + lane % kOfWarp;
    column_ = first_column_ + of_block_;
    const int64_t state = (row + threadIdx.x / 32) * a_.state_heads + head_;
    beta_ = args.beta == nullptr ? nullptr : args.beta + state;
    loss_ = kKey || args.loss == nullptr ? nullptr : args.loss + state;
    state_ =
        a_.states + slot * a_.slot_stride + static_cast<int64_t>(head_) * a_.dk * a_.dv + column_;
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      s_[i] = Holds(i) ? state_[static_cast<int64_t>(KeyAt(i)) * a_.dv] : 0.0f;
    // What no copy writes: keys past the head's, and gates that the layer has not.
    for (int i = threadIdx.x; i < 2 * At::kFloats; i += kThreads) {
      const int at = i % At::kFloats;
      shared_[i] = at >= At::kBeta && at < At::kHeadLoss ? args.beta_max : 0.0f;
    }
    __syncthreads();
  }

  // `count` rows; out (rows, out_stride), of which the state's columns are written.
  template <class Out>
  __device__ void Run(int count, Out* out, int64_t out_stride) {
    out += row_ * out_stride + head_ * a_.dv + first_column_;
    Fetch(min(count, At::kTokens), shared_);
    CommitCopies();
    float* stage = shared_;
    float* next = shared_ + At::kFloats;
    for (int done = 0; done < count; done += At::kTokens) {
      const int left = count - done - At::kTokens, tokens = min(count - done, At::kTokens);
      if (left > 0) Fetch(min(left, At::kTokens), next);
      CommitCopies();
      WaitCopies<1>();
      __syncthreads();
      Take(stage, tokens);
      __syncthreads();
      Store(stage + At::kO, done - 1, tokens, out, out_stride);
      float* const read = stage;
      stage = next;
      next = read;
    }
    const float o = SumShares(o_);
    if (share_ == 0 && column_ < a_.dv) Put(o, out + (count - 1) * out_stride + of_block_);
  }

  __device__ void Save() const {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      if (Holds(i)) state_[static_cast<int64_t>(KeyAt(i)) * a_.dv] = s_[i];
  }

 private:
  // The rows' keys, or queries, of the state's head.
  __device__ __forceinline__ RowCopies KeysOf(const DeltaArgs& args, int offset) const {
    const LinearArgs& a = args.layer;
    const int head = blockIdx.y / (a.state_heads / a.k_heads);
    return {a.decode_front + row_ * a.front_stride + offset + head * a.dk, a.front_stride, a.dk,
            a.plain};
  }
  // The lane's keys: four neighbours of every 32, so that the lanes of a column read 128 bytes.
  __device__ __forceinline__ int KeyAt(int i) const {
    return i / 4 * 4 * kShare + share_ * 4 + i % 4;
  }
  __device__ __forceinline__ bool Holds(int i) const { return KeyAt(i) < a_.dk && column_ < a_.dv; }
  __device__ __forceinline__ static float SumShares(float x) {
#pragma unroll
    for (int d = kOfWarp; d < 32; d *= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
  }

  // Starts the copies of the next `tokens` rows, a warp a row.
  __device__ __forceinline__ void Fetch(int tokens, float* stage) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < At::kTokens / kWarps; ++i) {
      const int t = threadIdx.x / 32 + i * kWarps;
      if (t >= tokens) break;
      keys_.template Copy<At::kKeys>(stage + t * At::kKeys);
      queries_.template Copy<At::kKeys>(stage + At::kQ + t * At::kKeys);
      if constexpr (kKey) losses_.template Copy<At::kKeys>(stage + At::kLoss + t * At::kKeys);
      values_.template Copy<kColumns>(stage + At::kV + t * kColumns);
      if (lane == 0 && beta_ != nullptr) CopyAsync4(SharedAddress(stage + At::kBeta + t), beta_);
      if (lane == 0 && loss_ != nullptr)
        CopyAsync4(SharedAddress(stage + At::kHeadLoss + t), loss_);
      beta_ += beta_ == nullptr ? 0 : kWarps * a_.state_heads;
      loss_ += loss_ == nullptr ? 0 : kWarps * a_.state_heads;
    }
  }

  // A token's output is summed with the next token's prediction, whose shuffles it shares: place t
  // of the stage's outputs has that of the token before t.
  __device__ __forceinline__ void Take(float* stage, int tokens) {
    for (int t = 0; t < tokens; ++t) {
      const float4* k = reinterpret_cast<const float4*>(stage + t * At::kKeys) + share_;
      const float4* q = reinterpret_cast<const float4*>(stage + At::kQ + t * At::kKeys) + share_;
      const float4* key_loss =
          reinterpret_cast<const float4*>(stage + At::kLoss + t * At::kKeys) + share_;
      const float loss = kKey ? 0.0f : stage[At::kHeadLoss + t];
      float part[4] = {};
#pragma unroll
      for (int j = 0; j < kRows / 4; ++j) {
        const float4 x = k[j * kShare];
        const float4 l = kKey ? key_loss[j * kShare] : make_float4(loss, loss, loss, loss);
        float* s = s_ + j * 4;
        s[0] = fmaf(s[0], l.x, s[0]);
        s[1] = fmaf(s[1], l.y, s[1]);
        s[2] = fmaf(s[2], l.z, s[2]);
        s[3] = fmaf(s[3], l.w, s[3]);
        part[0] = fmaf(x.x, s[0], part[0]);
        part[1] = fmaf(x.y, s[1], part[1]);
        part[2] = fmaf(x.z, s[2], part[2]);
        part[3] = fmaf(x.w, s[3], part[3]);
      }
      const float said = SumShares((part[0] + part[1]) + (part[2] + part[3]));
      const float o = SumShares(o_);
      if (share_ == 0) stage[At::kO + t * kColumns + of_block_] = o;
      const float u = stage[At::kBeta + t] * (stage[At::kV + t * kColumns + of_block_] - said);
      float sum[4] = {};
#pragma unroll
      for (int j = 0; j < kRows / 4; ++j) {
        const float4 x = k[j * kShare], y = q[j * kShare];
        float* s = s_ + j * 4;
        s[0] = fmaf(x.x, u, s[0]);
        s[1] = fmaf(x.y, u, s[1]);
        s[2] = fmaf(x.z, u, s[2]);
        s[3] = fmaf(x.w, u, s[3]);
        sum[0] = fmaf(y.x, s[0], sum[0]);
        sum[1] = fmaf(y.y, s[1], sum[1]);
        sum[2] = fmaf(y.z, s[2], sum[2]);
        sum[3] = fmaf(y.w, s[3], sum[3]);
      }
      o_ = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
  }

  // A stage's outputs, of the tokens from `first` on, counted from row_; there is none before 0.
  __device__ __forceinline__ void Store(const float* o, int first, int tokens, bf16* out,
                                        int64_t out_stride) const {
    if (a_.plain) {
      StoreEach(o, first, tokens, out, out_stride);
      return;
    }
    const int t = threadIdx.x / 2, column = threadIdx.x % 2 * 8;
    if (t >= tokens || first + t < 0 || first_column_ + column >= a_.dv) return;
    const float* from = o + t * kColumns + column;
    *reinterpret_cast<uint4*>(out + (first + t) * out_stride + column) =
        make_uint4(PackBf16(from[0], from[1]), PackBf16(from[2], from[3]),
                   PackBf16(from[4], from[5]), PackBf16(from[6], from[7]));
  }
  __device__ __forceinline__ void Store(const float* o, int first, int tokens, float* out,
                                        int64_t out_stride) const {
    StoreEach(o, first, tokens, out, out_stride);
  }
  template <class Out>
  __device__ __forceinline__ void StoreEach(const float* o, int first, int tokens, Out* out,
                                            int64_t out_stride) const {
    for (int i = threadIdx.x; i < tokens * kColumns; i += kThreads) {
      const int t = i / kColumns, column = i % kColumns;
      if (first + t >= 0 && first_column_ + column < a_.dv)
        Put(o[i], out + (first + t) * out_stride + column);
    }
  }

  const LinearArgs& a_;
  float* const shared_;
  const int head_, first_column_;
  const int64_t row_;
  RowCopies keys_, queries_, losses_, values_;
  const float* beta_;  // of the warp's next row; null: there is none
  const float* loss_;
  int share_, of_block_, column_;
  float* state_;
  float s_[kRows];
  float o_ = 0.0f;  // the lane's share of the last token's output
};

template <int kRows, bool kKey>
__global__ void __launch_bounds__(kThreads)
    DeltaPromptKernel(const __grid_constant__ DeltaArgs args, bf16* out, int64_t out_stride,
                      int chunks) {
  extern __shared__ __align__(16) float shared[];
  __shared__ int end;
  WaitForPredecessor();
  const LinearArgs& a = args.layer;
  const ChunkMeta* meta = MetaArray<ChunkMeta>(a.meta, a.meta->chunks) + blockIdx.z;
  if (meta->offset != 0) return;  // another block's segment
  if (threadIdx.x == 0) end = INT_MAX;
  __syncthreads();
  for (int first = 0; end == INT_MAX; first += kThreads) {
    const int c = first + threadIdx.x;
    __syncthreads();
    if (c + static_cast<int>(blockIdx.z) < chunks && meta[c].last) atomicMin(&end, c);
    __syncthreads();
  }
  const int64_t row = meta->row;
  const int count = static_cast<int>(meta[end].row + meta[end].tokens - row);
  Recurrence<kRows, kKey> state(args, meta->slot, row, shared);
  state.Run(count, out, out_stride);
  state.Save();
}

template <int kRows, bool kKey>
__global__ void __launch_bounds__(kThreads)
    DeltaRowKernel(const __grid_constant__ DeltaArgs args, float* out) {
  extern __shared__ __align__(16) float shared[];
  WaitForPredecessor();
  const LinearArgs& a = args.layer;
  const int row = blockIdx.z;
  if (row >= a.meta->num_decode) return;
  Recurrence<kRows, kKey> state(args, MetaArray<RowMeta>(a.meta, a.meta->rows)[row].slot, row,
                                shared);
  state.Run(1, out, int64_t{a.out_heads} * a.dv);
  state.Save();
}

template <int kRows, bool kKey, class... Args>
cudaError_t LaunchRows(void (*kernel)(DeltaArgs, Args...), const DeltaArgs& args, int items,
                       cudaStream_t stream, Args... rest) {
  const int bytes = 2 * Stage<kRows, kKey>::kFloats * static_cast<int>(sizeof(float));
  if (bytes > 48 * 1024) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return error;
  }
  const dim3 grid((args.layer.dv + kColumns - 1) / kColumns, args.layer.state_heads, items);
  return Launch(kernel, grid, kThreads, bytes, stream, 1, args, rest...);
}

// Calls `launch` with the kernels' parameters: keys of a lane, and whether each has a decay.
template <class LaunchOf>
cudaError_t ForShape(const LinearArgs& a, LaunchOf launch) {
  const bool key = a.decay == LinearDecay::kKey;
  const auto rows = [&]<int kRows>() {
    return key ? launch.template operator()<kRows, true>()
               : launch.template operator()<kRows, false>();
  };
  return a.dk <= 64    ? rows.template operator()<8>()
         : a.dk <= 128 ? rows.template operator()<16>()
         : a.dk <= 256 ? rows.template operator()<32>()
                       : rows.template operator()<64>();
}

}  // namespace

cudaError_t LaunchDeltaRecurrence(const DeltaArgs& args, const LinearDecodeBuffers& buffers,
                                  int grid_rows, cudaStream_t stream) {
  return ForShape(args.layer, [&]<int kRows, bool kKey>() {
    return LaunchRows<kRows, kKey>(DeltaRowKernel<kRows, kKey>, args, grid_rows, stream, buffers.o);
  });
}

cudaError_t LaunchDeltaPrompts(const DeltaArgs& args, const LinearBack& back, int chunks, int first,
                               int rows, cudaStream_t stream) {
  const cudaError_t error = ForShape(args.layer, [&]<int kRows, bool kKey>() {
    return LaunchRows<kRows, kKey>(DeltaPromptKernel<kRows, kKey>, args, chunks, stream, back.out,
                                   back.out_stride, chunks);
  });
  if (error != cudaSuccess) return error;
  return args.layer.plain ? LaunchPlainBack(args.layer, back, {}, first, rows, stream)
                          : LaunchLinearBack(args.layer, back, {}, first, rows, stream);
}

}  // namespace sluice::cuda
