// The end of the mixer for prompt rows: RMSNorm of each head's output and the output gate, in
// place, a warp a head.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gate.cuh"
#include "kernels/cuda/mixer.h"

namespace sluice::cuda {
namespace {

constexpr int kHeldColumns =
    512;  // of a head that a warp keeps in registers between its two passes

__device__ __forceinline__ float Square(uint32_t pair) {
  return LowBf16(pair) * LowBf16(pair) + HighBf16(pair) * HighBf16(pair);
}

__global__ void __launch_bounds__(256)
    HeadNormKernel(const __grid_constant__ MixerLaunch a, int first, int rows) {
  WaitForPredecessor();
  const int64_t item = static_cast<int64_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (item >= static_cast<int64_t>(rows) * a.heads) return;
  const int64_t row = first + item / a.heads;
  const int c0 = static_cast<int>(item % a.heads) * a.dv;
  bf16* o = a.out + row * a.out_stride + c0;
  const bf16* gate = a.in + row * a.in_stride + a.g_offset + c0;
  uint4 held[kHeldColumns / 256];
  float sum = 0.0f;
  for (int base = 0; base < a.dv; base += kHeldColumns) {
#pragma unroll
    for (int i = 0; i < kHeldColumns / 256; ++i) {
      const int c = base + i * 256 + lane * 8;
      held[i] = c < a.dv ? *reinterpret_cast<const uint4*>(o + c) : make_uint4(0, 0, 0, 0);
      sum += Square(held[i].x) + Square(held[i].y) + Square(held[i].z) + Square(held[i].w);
    }
  }
  const float scale = rsqrtf(WarpSum(sum) / a.dv + a.eps);
  for (int base = 0; base < a.dv; base += kHeldColumns) {
#pragma unroll
    for (int i = 0; i < kHeldColumns / 256; ++i) {
      const int c = base + i * 256 + lane * 8;
      if (c >= a.dv) continue;
      if (a.dv > kHeldColumns) held[i] = *reinterpret_cast<const uint4*>(o + c);
      const uint4 gates =
          a.output_gate ? *reinterpret_cast<const uint4*>(gate + c) : make_uint4(0, 0, 0, 0);
      const uint32_t in[4] = {held[i].x, held[i].y, held[i].z, held[i].w};
      const uint32_t g[4] = {gates.x, gates.y, gates.z, gates.w};
      uint32_t out[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float low = LowBf16(in[j]) * scale, high = HighBf16(in[j]) * scale;
        if (a.head_norm != nullptr) {
          low *= a.head_norm[c + 2 * j];
          high *= a.head_norm[c + 2 * j + 1];
        }
        if (a.output_gate) {
          low *= Silu(LowBf16(g[j]));
          high *= Silu(HighBf16(g[j]));
        }
        out[j] = PackBf16(low, high);
      }
      *reinterpret_cast<uint4*>(o + c) = make_uint4(out[0], out[1], out[2], out[3]);
    }
  }
}

}  // namespace

cudaError_t LaunchHeadNorm(const MixerLaunch& args, const ChunkBuffers&, int first, int rows,
                           cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const int64_t blocks = (static_cast<int64_t>(rows) * args.heads + 7) / 8;
  return Launch(HeadNormKernel, static_cast<unsigned>(blocks), 256, 0, stream, 1, args, first,
                rows);
}

}  // namespace sluice::cuda
