// The state that enters each whole span, where a state's key channels share their decay:
// S_in(p + 1) = decay_p S_in(p) + sums_p, from the slot's state on, elementwise. Sums and entering
// states share their place, and lie as linear_chunk.cu's accumulators do.
#include "kernels/cuda/chunk_tiles.cuh"
#include "kernels/cuda/linear.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kAhead = 4;                            // spans whose loads are in flight together
constexpr int kKeys = kThreads / kGroupThreads * 8;  // of a block, by 64 columns
constexpr int kRowFloats = 68;  // of a key's 64 columns in shared memory, so that banks differ

// A block's piece of a state on its way between a slot, where a thread takes four columns of a key,
// and linear_chunk.cu's order, where it takes keys key, key + 1 at columns col and col + 8.
class Piece {
 public:
  // The block is number `index` of those that share a state.
  __device__ __forceinline__ Piece(const LinearArgs& a, const LinearBuffers& b, int index,
                                   float* rows)
      : rows_(rows) {
    const int of_tile = b.chunk.key_stride / kKeys, thread = threadIdx.x % kGroupThreads;
    const int lane = thread % 32;
    key_ = threadIdx.x / kGroupThreads * 8 + lane % 4 * 2;
    col_ = thread / 32 * 16 + lane / 4;
    row_ = threadIdx.x / 16;
    row_col_ = threadIdx.x % 16 * 4;
    const int slot_key = index % of_tile * kKeys + row_, slot_col = index / of_tile * 64 + row_col_;
    // A head's last keys and columns can be padding; dv is a multiple of 8.
    valid_ = slot_key < a.dk && slot_col < a.dv;
    in_state_ = static_cast<int64_t>(slot_key) * a.dv + slot_col;
  }
  __device__ __forceinline__ float4 Load(const float* state) {
    RowFour() =
        valid_ ? *reinterpret_cast<const float4*>(state + in_state_) : make_float4(0, 0, 0, 0);
    __syncthreads();
    const float* from = rows_ + key_ * kRowFloats + col_;
    return make_float4(from[0], from[kRowFloats], from[8], from[kRowFloats + 8]);
  }
  // What Load read of shared memory is overwritten by the thread that read it.
  __device__ __forceinline__ void Store(float4 s, float* state) {
    float* to = rows_ + key_ * kRowFloats + col_;
    to[0] = s.x;
    to[kRowFloats] = s.y;
    to[8] = s.z;
    to[kRowFloats + 8] = s.w;
    __syncthreads();
    if (valid_) *reinterpret_cast<float4*>(state + in_state_) = RowFour();
  }

 private:
  __device__ __forceinline__ float4& RowFour() {
    return *reinterpret_cast<float4*>(rows_ + row_ * kRowFloats + row_col_);
  }

  float* const rows_;
  int key_, col_, row_, row_col_;
  bool valid_;
  int64_t in_state_;
};

__global__ void __launch_bounds__(kThreads, 4)
    LinearScanKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBuffers b,
                     int first_scan) {
  __shared__ __align__(16) float rows[kKeys * kRowFloats];
  WaitForPredecessor();
  const int state = blockIdx.y;
  const ScanMeta scan = MetaArray<ScanMeta>(a.meta, a.meta->scans)[first_scan + blockIdx.z];
  const int64_t first =
      static_cast<int64_t>(MetaArray<SpanMeta>(a.meta, a.meta->spans)[scan.span].carry) *
          a.state_heads +
      state;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * a.state_heads;  // of spans
  float4* carry = reinterpret_cast<float4*>(b.chunk.carry) + first * gridDim.x * kThreads +
                  blockIdx.x * kThreads + threadIdx.x;
  const float* decay = b.chunk.span_decay + first;
  float4 next_sums[kAhead];
  float next_decays[kAhead];
  // The first of `left` spans that lie from `sums` on.
  const auto load = [&](const float4* sums, int left) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (i < left) {
        next_sums[i] = *sums;
        next_decays[i] = *decay;
      }
      sums += stride;
      decay += a.state_heads;
    }
  };
  load(carry, scan.spans);
  Piece piece(a, b, blockIdx.x, rows);
  float* const slot =
      a.states + scan.slot * a.slot_stride + static_cast<int64_t>(state) * a.dk * a.dv;
  float4 s = piece.Load(slot);
  for (int left = scan.spans; left > 0; left -= kAhead) {
    float4 sums[kAhead];
    float decays[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      sums[i] = next_sums[i];
      decays[i] = next_decays[i];
    }
    load(carry + kAhead * stride, left - kAhead);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (i < left) {
        *carry = s;
        s.x = fmaf(decays[i], s.x, sums[i].x);
        s.y = fmaf(decays[i], s.y, sums[i].y);
        s.z = fmaf(decays[i], s.z, sums[i].z);
        s.w = fmaf(decays[i], s.w, sums[i].w);
      }
      carry += stride;
    }
  }
  piece.Store(s, slot);
}

}  // namespace

cudaError_t LaunchLinearScan(const LinearArgs& args, const LinearBuffers& buffers,
                             const ChunkRange& range, cudaStream_t stream) {
  if (range.scans == 0) return cudaSuccess;
  const int pieces = (args.dv + 63) / 64 * (buffers.chunk.key_stride / kKeys);
  const dim3 grid(pieces, args.state_heads, range.scans);
  return Launch(LinearScanKernel, grid, kThreads, 0, stream, 1, args, buffers, range.first_scan);
}

}  // namespace sluice::cuda
