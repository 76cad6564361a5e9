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

// kRows: keys of a lane. A stage is k | q | D - 1 of each key | v | beta | D - 1 of the head.
template <int kRows, bool kKey>
struct Stage {
  static constexpr int kKeys = kRows * kShare, kTokens = StageTokens<kRows>();
  static constexpr int kQ = kTokens * kKeys, kLoss = 2 * kQ, kV = kLoss + (kKey ? kQ : 0),
                       kBeta = kV + kTokens * kColumns, kHeadLoss = kBeta + kTokens,
                       kFloats = kHeadLoss + kTokens;
};

// The block's columns of one state, and the tokens that take them on.
template <int kRows, bool kKey>
class Recurrence {
 public:
  using At = Stage<kRows, kKey>;

  // shared: two stages.
  __device__ Recurrence(const DeltaArgs& args, int slot, float* shared)
      : args_(args),
        a_(args.layer),
        shared_(shared),
        head_(blockIdx.y),
        key_head_(blockIdx.y / (args.layer.state_heads / args.layer.k_heads)),
        first_column_(blockIdx.x * kColumns) {
    const int lane = threadIdx.x % 32;
    share_ = lane / kOfWarp;
    of_block_ = threadIdx.x / 32 * kOfWarp + lane % kOfWarp;
    column_ = first_column_ + of_block_;
    state_ =
        a_.states + slot * a_.slot_stride + static_cast<int64_t>(head_) * a_.dk * a_.dv + column_;
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      s_[i] = Holds(i) ? state_[static_cast<int64_t>(KeyAt(i)) * a_.dv] : 0.0f;
    // Keys past the head's stay zeros.
    for (int i = threadIdx.x; i < 2 * At::kFloats; i += kThreads) shared_[i] = 0.0f;
    __syncthreads();
  }

  // Rows [row, row + count); out (rows, out_stride), of which the state's columns are written.
  template <class Out>
  __device__ void Run(int64_t row, int count, Out* out, int64_t out_stride) {
    out += static_cast<int64_t>(head_) * a_.dv + column_;
    Fetch(row, min(count, At::kTokens), shared_);
    CommitCopies();
    float* stage = shared_;
    float* next = shared_ + At::kFloats;
    for (int done = 0; done < count; done += At::kTokens) {
      const int left = count - done - At::kTokens;
      if (left > 0) Fetch(row + done + At::kTokens, min(left, At::kTokens), next);
      CommitCopies();
      WaitCopies<1>();
      __syncthreads();
      Take(stage, row + done, min(count - done, At::kTokens), out, out_stride);
      __syncthreads();
      float* const read = stage;
      stage = next;
      next = read;
    }
    const float o = SumShares(o_);
    if (share_ == 0 && column_ < a_.dv) Put(o, out + (row + count - 1) * out_stride);
  }

  __device__ void Save() const {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      if (Holds(i)) state_[static_cast<int64_t>(KeyAt(i)) * a_.dv] = s_[i];
  }

 private:
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

  // Starts copies of `count` numbers by a warp.
  __device__ __forceinline__ void CopyRow(float* to, const float* from, int count) const {
    const int lane = threadIdx.x % 32;
    const uint32_t shared = SharedAddress(to);
    if (a_.plain) {
      for (int i = lane; i < count; i += 32) CopyAsync4(shared + i * 4, from + i);
    } else {
      for (int i = lane * 4; i < count; i += 128) CopyAsync16(shared + i * 4, from + i, true);
    }
  }
  // A warp a token.
  __device__ void Fetch(int64_t row, int tokens, float* stage) const {
    const int lane = threadIdx.x % 32, columns = min(kColumns, a_.dv - first_column_);
    for (int t = threadIdx.x / 32; t < tokens; t += kWarps) {
      const float* front = a_.decode_front + (row + t) * a_.front_stride;
      const int64_t state = (row + t) * a_.state_heads + head_;
      CopyRow(stage + t * At::kKeys, front + a_.k_offset + key_head_ * a_.dk, a_.dk);
      CopyRow(stage + At::kQ + t * At::kKeys, front + key_head_ * a_.dk, a_.dk);
      if constexpr (kKey)
        CopyRow(stage + At::kLoss + t * At::kKeys, args_.loss + state * a_.dk, a_.dk);
      CopyRow(stage + At::kV + t * kColumns, front + a_.v_offset + head_ * a_.dv + first_column_,
              columns);
      if (lane == 0 && args_.beta != nullptr)
        CopyAsync4(SharedAddress(stage + At::kBeta + t), args_.beta + state);
      if (lane == 0 && !kKey && args_.loss != nullptr)
        CopyAsync4(SharedAddress(stage + At::kHeadLoss + t), args_.loss + state);
    }
  }

  // A token's output is summed with the next token's prediction, whose shuffles it shares.
  template <class Out>
  __device__ __forceinline__ void Take(const float* stage, int64_t row, int tokens, Out* out,
                                       int64_t out_stride) {
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
      if (started_ && share_ == 0 && column_ < a_.dv) Put(o, out + (row + t - 1) * out_stride);
      started_ = true;
      const float beta = args_.beta == nullptr ? args_.beta_max : stage[At::kBeta + t];
      const float u = beta * (stage[At::kV + t * kColumns + of_block_] - said);
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

  const DeltaArgs& args_;
  const LinearArgs& a_;
  float* const shared_;
  const int head_, key_head_, first_column_;
  int share_, of_block_, column_;
  float* state_;
  float s_[kRows];
  float o_ = 0.0f;  // the lane's share of the last token's output
  bool started_ = false;
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
  Recurrence<kRows, kKey> state(args, meta->slot, shared);
  state.Run(row, count, out, out_stride);
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
  Recurrence<kRows, kKey> state(args, MetaArray<RowMeta>(a.meta, a.meta->rows)[row].slot, shared);
  state.Run(row, 1, out, int64_t{a.out_heads} * a.dv);
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
