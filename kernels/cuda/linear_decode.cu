// One token of the generic linear core by its recurrence: S <- D S + k v^T, o = S^T q, then the
// row's end (linear_back.cuh). A block takes 64 columns of a state through registers: it reads
// them once and writes them once, 16 bytes a lane, half a warp a row. The last block of a row to
// arrive does the row's end, so that only the last rows' ends are waited for. The order of every
// sum follows from the shape alone.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/linear_back.cuh"

namespace sluice::cuda {
namespace {

constexpr int kThreads = kBackThreads;
constexpr int kWarps = kThreads / 32;
constexpr int kTile = 64;                 // columns of the state
constexpr int kRowsPerPass = 2 * kWarps;  // that the block reads with one instruction

__host__ __device__ inline int Tiles(int dv) { return (dv + kTile - 1) / kTile; }

struct Shared {  // offsets in floats
  int q, k, alpha, red, total;
};
__host__ __device__ inline Shared SharedLayout(const LinearArgs& a) {
  Shared s;
  s.q = 0;
  s.k = s.q + a.out_heads / a.state_heads * a.dk;
  s.alpha = s.k + a.dk;
  s.red = s.alpha + (a.decay == LinearDecay::kKey ? a.dk : 0);
  s.total = s.red + kWarps * kTile;
  return s;
}

// to (kTile) = or += the sum over the block's rows of what its threads hold for their four columns.
__device__ __forceinline__ void SumColumns(float4 o, float* red, float* to, bool add) {
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  o.x += __shfl_xor_sync(0xffffffffu, o.x, 16);
  o.y += __shfl_xor_sync(0xffffffffu, o.y, 16);
  o.z += __shfl_xor_sync(0xffffffffu, o.z, 16);
  o.w += __shfl_xor_sync(0xffffffffu, o.w, 16);
  if (lane < 16) *reinterpret_cast<float4*>(red + warp * kTile + lane * 4) = o;
  __syncthreads();
  if (thread < kTile && to != nullptr) {
    float sum = add ? to[thread] : 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += red[w * kTile + thread];
    to[thread] = sum;
  }
  __syncthreads();
}

// A decay that a state's key channels share. Near 1 it has lost most digits of its distance from 1,
// by which a slowly decaying state differs from one that never does: there S + S (D - 1) keeps
// them.
struct StateDecay {
  float keep = 1.0f, factor = 0.0f;

  __device__ __forceinline__ explicit StateDecay(float log_decay) {
    const bool near_one = log_decay > -0.25f;
    keep = near_one ? 1.0f : 0.0f;
    factor = near_one ? expm1f(log_decay) : expf(log_decay);
  }
  __device__ __forceinline__ float Of(float s) const { return fmaf(factor, s, keep * s); }
};

// z <- D z + k and q z of the state's queries; by the block of a state's first columns.
template <bool kKey>
__device__ void StepNormaliser(const LinearArgs& a, float* z, const float* shared, Shared at,
                               StateDecay decay, float key_scale, int groups, float* red,
                               float* denominators) {
  const int thread = threadIdx.x;
  for (int c = thread; c < a.dk; c += kThreads) {
    const float decayed = kKey ? shared[at.alpha + c] * z[c] : decay.Of(z[c]);
    z[c] = fmaf(shared[at.k + c], key_scale, decayed);
  }
  for (int g = 0; g < groups; ++g) {
    float sum = 0.0f;
    for (int c = thread; c < a.dk; c += kThreads)
      sum = fmaf(shared[at.q + g * a.dk + c], z[c], sum);
    sum = WarpSum(sum);
    if (thread % 32 == 0) red[thread / 32] = sum;
    __syncthreads();
    if (thread == 0) {
      float total = 0.0f;
      for (int w = 0; w < kWarps; ++w) total += red[w];
      denominators[g] = total;
    }
    __syncthreads();
  }
}

// kPasses: of kRowsPerPass rows, loaded at once. kSingle: one query a state; its sums' order is the
// same for every kPasses.
template <int kPasses, int kBlocks, bool kKey, bool kSingle>
__global__ void __launch_bounds__(kThreads, kBlocks)
    LinearDecodeKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBack b,
                       const __grid_constant__ LinearDecodeBuffers buffers) {
  extern __shared__ __align__(16) float shared[];
  __shared__ int arrived;
  const Shared at = SharedLayout(a);
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int tiles = Tiles(a.dv), row_blocks = tiles * a.state_heads;
  const int row = blockIdx.x / row_blocks, head = blockIdx.x % row_blocks / tiles;
  const int tile = blockIdx.x % tiles, col = tile * kTile;
  const int groups = kSingle ? 1 : a.out_heads / a.state_heads;
  // The block that describes the step was complete before this step's first kernel.
  const bool active = row < a.meta->num_decode;
  const int slot = active ? MetaArray<RowMeta>(a.meta, a.meta->rows)[row].slot : 0;
  float* state = a.states + slot * a.slot_stride + static_cast<int64_t>(head) * a.dk * a.dv;

  const int sub_row = warp * 2 + lane / 16, sub_col = lane % 16 * 4;
  const bool in_tile = col + sub_col < a.dv;
  float* const mine = state + static_cast<int64_t>(sub_row) * a.dv + col + sub_col;
  float4 s[kPasses];
  const auto load = [&](int k0) {
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int k = k0 + i * kRowsPerPass;
      s[i] = in_tile && k + sub_row < a.dk
                 ? __ldcs(reinterpret_cast<const float4*>(mine + static_cast<int64_t>(k) * a.dv))
                 : make_float4(0, 0, 0, 0);
    }
  };
  // The first rows are under way while front is still being computed.
  if (active) load(0);
  WaitForPredecessor();
  if (!active) return;

  const float* front = a.decode_front + row * a.front_stride;
  const int first_out = head * groups;
  for (int i = thread; i < groups * a.dk; i += kThreads) {
    const int query = (first_out + i / a.dk) / (a.out_heads / a.q_heads);
    shared[at.q + i] = front[query * a.dk + i % a.dk];
  }
  const float* key = front + a.k_offset + head / (a.state_heads / a.k_heads) * a.dk;
  for (int i = thread; i < a.dk; i += kThreads) {
    shared[at.k + i] = key[i];
    if constexpr (kKey) {
      shared[at.alpha + i] =
          expf(a.log_decay[(static_cast<int64_t>(row) * a.state_heads + head) * a.dk + i]);
    }
  }
  float log_decay = 0.0f;
  if (a.decay == LinearDecay::kConst) log_decay = a.log_decay[head];
  if (a.decay == LinearDecay::kHead)
    log_decay = a.log_decay[static_cast<int64_t>(row) * a.state_heads + head];
  const StateDecay decay(log_decay);
  const float key_scale =
      a.key_scale == nullptr ? 1.0f : a.key_scale[static_cast<int64_t>(row) * a.state_heads + head];
  float4 v = make_float4(0, 0, 0, 0);
  if (in_tile) {
    v = *reinterpret_cast<const float4*>(front + a.v_offset +
                                         head / (a.state_heads / a.v_heads) * a.dv + col + sub_col);
    v.x *= key_scale;
    v.y *= key_scale;
    v.z *= key_scale;
    v.w *= key_scale;
  }
  __syncthreads();

  float* red = shared + at.red;
  float* const out = buffers.o + (static_cast<int64_t>(row) * a.out_heads + first_out) * a.dv + col;
  float4 o = make_float4(0, 0, 0, 0);
  for (int k0 = 0; k0 < a.dk; k0 += kPasses * kRowsPerPass) {
    if (k0 != 0) load(k0);
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int k = k0 + sub_row + i * kRowsPerPass;
      if (k < a.dk) {
        const float x = shared[at.k + k], alpha = kKey ? shared[at.alpha + k] : 0.0f;
        s[i].x = fmaf(x, v.x, kKey ? alpha * s[i].x : decay.Of(s[i].x));
        s[i].y = fmaf(x, v.y, kKey ? alpha * s[i].y : decay.Of(s[i].y));
        s[i].z = fmaf(x, v.z, kKey ? alpha * s[i].z : decay.Of(s[i].z));
        s[i].w = fmaf(x, v.w, kKey ? alpha * s[i].w : decay.Of(s[i].w));
        if (in_tile) {
          __stcs(
              reinterpret_cast<float4*>(mine + static_cast<int64_t>(k0 + i * kRowsPerPass) * a.dv),
              s[i]);
        }
      }
    }
    for (int g = 0; g < groups; ++g) {
      if constexpr (!kSingle) o = make_float4(0, 0, 0, 0);
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        const int k = k0 + sub_row + i * kRowsPerPass;
        const float q = k < a.dk ? shared[at.q + g * a.dk + k] : 0.0f;
        o.x = fmaf(q, s[i].x, o.x);
        o.y = fmaf(q, s[i].y, o.y);
        o.z = fmaf(q, s[i].z, o.z);
        o.w = fmaf(q, s[i].w, o.w);
      }
      if constexpr (!kSingle) {
        SumColumns(o, red, thread < a.dv - col ? out + g * a.dv : nullptr, k0 > 0);
      }
    }
  }
  if constexpr (kSingle) SumColumns(o, red, thread < a.dv - col ? out : nullptr, false);

  float* denominators = nullptr;
  if (a.normalisers != nullptr) {
    denominators = buffers.denominators + static_cast<int64_t>(row) * a.out_heads;
    if (tile == 0) {
      float* z = a.normalisers + slot * a.slot_stride + static_cast<int64_t>(head) * a.dk;
      StepNormaliser<kKey>(a, z, shared, at, decay, key_scale, groups, red,
                           denominators + first_out);
    }
  }

  __threadfence();
  __syncthreads();
  if (thread == 0) arrived = atomicAdd(buffers.arrivals + row, 1);
  __syncthreads();
  if (arrived != row_blocks - 1) return;
  __threadfence();
  BackRow<float, float>(a, b, row, buffers.o + static_cast<int64_t>(row) * a.out_heads * a.dv,
                        front, denominators)
      .Run(red);
  if (thread == 0) buffers.arrivals[row] = 0;
}

template <int kPasses, int kBlocks, bool kKey, bool kSingle>
cudaError_t LaunchPasses(const LinearArgs& args, const LinearBack& back,
                         const LinearDecodeBuffers& buffers, int grid_rows, cudaStream_t stream) {
  const size_t bytes = LinearDecodeSharedBytes(args);
  const auto kernel = LinearDecodeKernel<kPasses, kBlocks, kKey, kSingle>;
  if (bytes > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error != cudaSuccess) return error;
  }
  return Launch(kernel, grid_rows * args.state_heads * Tiles(args.dv), kThreads, bytes, stream, 1,
                args, back, buffers);
}

template <bool kKey>
cudaError_t LaunchDecay(const LinearArgs& args, const LinearBack& back,
                        const LinearDecodeBuffers& buffers, int grid_rows, cudaStream_t stream) {
  if (args.out_heads != args.state_heads)
    return LaunchPasses<8, 3, kKey, false>(args, back, buffers, grid_rows, stream);
  // A few blocks have more loads in flight each; many blocks hide each other's phases.
  constexpr int kManyBlocks = 300;
  return grid_rows * args.state_heads * Tiles(args.dv) < kManyBlocks
             ? LaunchPasses<8, 2, kKey, true>(args, back, buffers, grid_rows, stream)
             : LaunchPasses<4, 4, kKey, true>(args, back, buffers, grid_rows, stream);
}

}  // namespace

size_t LinearDecodeSharedBytes(const LinearArgs& args) {
  return SharedLayout(args).total * sizeof(float);
}

cudaError_t LaunchLinearDecode(const LinearArgs& args, const LinearBack& back,
                               const LinearDecodeBuffers& buffers, int grid_rows,
                               cudaStream_t stream) {
  if (args.plain) return LaunchPlainDecode(args, back, buffers, grid_rows, stream);
  return args.decay == LinearDecay::kKey
             ? LaunchDecay<true>(args, back, buffers, grid_rows, stream)
             : LaunchDecay<false>(args, back, buffers, grid_rows, stream);
}

}  // namespace sluice::cuda
