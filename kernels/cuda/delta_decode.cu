// One token of the delta core, then the row's end (linear_back.cuh). A block holds all keys of 16
// to 64 columns of a state in registers, so that it reads them once and writes them once: what the
// decayed state says of the key and of the query comes from one pass,
//   u = beta (v - k S),   o = q S + (q k) u,   S <- S + k u^T
// The last block of a row to arrive does the row's end. The order of every sum follows from the
// shape alone.
#include "kernels/cuda/delta.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear_back.cuh"

namespace sluice::cuda {
namespace {

constexpr int kThreads = kBackThreads;
constexpr int kWarps = kThreads / 32;
constexpr int kPasses = 8;  // rows of the state that a thread has a part of

__device__ __forceinline__ float4 FusedScale(float4 s, float by) {  // s + by * s
  return make_float4(fmaf(by, s.x, s.x), fmaf(by, s.y, s.y), fmaf(by, s.z, s.z),
                     fmaf(by, s.w, s.w));
}
__device__ __forceinline__ float4 MulAdd(float by, float4 x, float4 y) {  // by * x + y
  return make_float4(fmaf(by, x.x, y.x), fmaf(by, x.y, y.y), fmaf(by, x.z, y.z),
                     fmaf(by, x.w, y.w));
}
// Over the lanes that hold the same columns.
template <int kLanes>
__device__ __forceinline__ float4 SumRows(float4 x) {
#pragma unroll
  for (int d = kLanes; d < 32; d *= 2) {
    x.x += __shfl_xor_sync(0xffffffffu, x.x, d);
    x.y += __shfl_xor_sync(0xffffffffu, x.y, d);
    x.z += __shfl_xor_sync(0xffffffffu, x.z, d);
    x.w += __shfl_xor_sync(0xffffffffu, x.w, d);
  }
  return x;
}

// kLanes threads hold a row of the block's columns, four each.
template <int kLanes, bool kKey>
__global__ void __launch_bounds__(kThreads, 4)
    DeltaDecodeKernel(const __grid_constant__ DeltaArgs args, const __grid_constant__ LinearBack b,
                      const __grid_constant__ LinearDecodeBuffers buffers) {
  constexpr int kTile = kLanes * 4, kRows = kThreads / kLanes, kMostKeys = kRows * kPasses;
  __shared__ float q[kMostKeys], k[kMostKeys], loss[kKey ? kMostKeys : 1];
  __shared__ __align__(16) float said[kWarps * kTile], asked[kWarps * kTile];
  __shared__ float dots[kWarps];
  __shared__ int arrived;
  const LinearArgs& a = args.layer;
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int tiles = (a.dv + kTile - 1) / kTile, row_blocks = tiles * a.state_heads;
  const int row = blockIdx.x / row_blocks, head = blockIdx.x % row_blocks / tiles;
  const int sub_row = thread / kLanes, column = blockIdx.x % tiles * kTile + thread % kLanes * 4;
  // The block that describes the step was complete before this step's first kernel.
  const bool active = row < a.meta->num_decode, in_tile = column < a.dv;
  const int slot = active ? MetaArray<RowMeta>(a.meta, a.meta->rows)[row].slot : 0;
  float* const mine = a.states + slot * a.slot_stride + static_cast<int64_t>(head) * a.dk * a.dv +
                      static_cast<int64_t>(sub_row) * a.dv + column;
  float4 s[kPasses];
#pragma unroll
  for (int i = 0; i < kPasses; ++i) {
    const bool there = active && in_tile && sub_row + i * kRows < a.dk;
    s[i] = there ? __ldcs(reinterpret_cast<const float4*>(mine + int64_t{i} * kRows * a.dv))
                 : make_float4(0, 0, 0, 0);
  }
  WaitForPredecessor();
  if (!active) return;

  const int64_t state = static_cast<int64_t>(row) * a.state_heads + head;
  const int sharers = a.state_heads / a.k_heads;
  const float* front = a.decode_front + row * a.front_stride;
  const float* query = front + head / sharers * a.dk;
  const float* key = front + a.k_offset + head / sharers * a.dk;
  float dot = 0.0f;
  for (int i = thread; i < kMostKeys; i += kThreads) {
    q[i] = i < a.dk ? query[i] : 0.0f;
    k[i] = i < a.dk ? key[i] : 0.0f;
    dot = fmaf(q[i], k[i], dot);
    if constexpr (kKey) loss[i] = i < a.dk ? args.loss[state * a.dk + i] : 0.0f;
  }
  dot = WarpSum(dot);
  if (lane == 0) dots[warp] = dot;
  const float of_head = kKey || args.loss == nullptr ? 0.0f : args.loss[state];
  const float beta = args.beta == nullptr ? args.beta_max : args.beta[state];
  __syncthreads();

  float4 r = make_float4(0, 0, 0, 0), p = r;
#pragma unroll
  for (int i = 0; i < kPasses; ++i) {
    const int at = sub_row + i * kRows;
    s[i] = FusedScale(s[i], kKey ? loss[at] : of_head);
    r = MulAdd(k[at], s[i], r);
    p = MulAdd(q[at], s[i], p);
  }
  r = SumRows<kLanes>(r);
  p = SumRows<kLanes>(p);
  if (lane < kLanes) {
    *reinterpret_cast<float4*>(said + warp * kTile + lane * 4) = r;
    *reinterpret_cast<float4*>(asked + warp * kTile + lane * 4) = p;
  }
  __syncthreads();
  r = make_float4(0, 0, 0, 0);
  const int mine_in_tile = thread % kLanes * 4;
#pragma unroll
  for (int w = 0; w < kWarps; ++w)
    r = MulAdd(1.0f, *reinterpret_cast<const float4*>(said + w * kTile + mine_in_tile), r);
  float4 u = make_float4(0, 0, 0, 0);
  if (in_tile) {
    const float4 v = *reinterpret_cast<const float4*>(front + a.v_offset + head * a.dv + column);
    u = make_float4(beta * (v.x - r.x), beta * (v.y - r.y), beta * (v.z - r.z), beta * (v.w - r.w));
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int at = sub_row + i * kRows;
      if (at >= a.dk) continue;
      __stcs(reinterpret_cast<float4*>(mine + int64_t{i} * kRows * a.dv), MulAdd(k[at], u, s[i]));
    }
  }
  if (thread < kLanes && in_tile) {
    float4 o = make_float4(0, 0, 0, 0);
    dot = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      o = MulAdd(1.0f, *reinterpret_cast<const float4*>(asked + w * kTile + mine_in_tile), o);
      dot += dots[w];
    }
    *reinterpret_cast<float4*>(buffers.o + state * a.dv + column) = MulAdd(dot, u, o);
  }

  __threadfence();
  __syncthreads();
  if (thread == 0) arrived = atomicAdd(buffers.arrivals + row, 1);
  __syncthreads();
  if (arrived != row_blocks - 1) return;
  __threadfence();
  BackRow<float, float>(a, b, row, buffers.o + static_cast<int64_t>(row) * a.out_heads * a.dv,
                        front, nullptr)
      .Run(dots);
  if (thread == 0) buffers.arrivals[row] = 0;
}

template <int kLanes>
cudaError_t LaunchTiles(const DeltaArgs& args, const LinearBack& back,
                        const LinearDecodeBuffers& buffers, int grid_rows, cudaStream_t stream) {
  const LinearArgs& a = args.layer;
  const int tiles = (a.dv + kLanes * 4 - 1) / (kLanes * 4);
  const auto kernel = a.decay == LinearDecay::kKey ? DeltaDecodeKernel<kLanes, true>
                                                   : DeltaDecodeKernel<kLanes, false>;
  return Launch(kernel, grid_rows * a.state_heads * tiles, kThreads, 0, stream, 1, args, back,
                buffers);
}

}  // namespace

cudaError_t LaunchDeltaDecode(const DeltaArgs& args, const LinearBack& back,
                              const LinearDecodeBuffers& buffers, int grid_rows,
                              cudaStream_t stream) {
  if (args.layer.plain) {
    const cudaError_t error = LaunchDeltaRecurrence(args, buffers, grid_rows, stream);
    return error != cudaSuccess
               ? error
               : LaunchPlainDecodeBack(args.layer, back, buffers, grid_rows, stream);
  }
  const int keys = args.layer.dk;
  return keys <= 128   ? LaunchTiles<16>(args, back, buffers, grid_rows, stream)
         : keys <= 256 ? LaunchTiles<8>(args, back, buffers, grid_rows, stream)
                       : LaunchTiles<4>(args, back, buffers, grid_rows, stream);
}

}  // namespace sluice::cuda
