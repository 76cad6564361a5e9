#include "kernels/cuda/device.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/rows.h"

namespace sluice::cuda {
namespace {

__device__ __forceinline__ uint32_t GatePair(uint32_t gate, uint32_t up) {
  return PackBf16(Silu(LowBf16(gate)) * LowBf16(up), Silu(HighBf16(gate)) * HighBf16(up));
}

// A thread makes 8 columns of y.
__global__ void __launch_bounds__(256)
    SwiGluKernel(const bf16* in, int64_t in_stride, int intermediate, bf16* y) {
  WaitForPredecessor();
  const int c = (blockIdx.x * 256 + threadIdx.x) * 8;
  if (c >= intermediate) return;
  const bf16* gate =
      in + blockIdx.y * in_stride + (c / kGateUpBlock) * 2 * kGateUpBlock + c % kGateUpBlock;
  const uint4 g = LoadStream(gate), u = LoadStream(gate + kGateUpBlock);
  // The matrix's padding makes zeros past `intermediate`, as y's padding wants them.
  *reinterpret_cast<uint4*>(y + blockIdx.y * Stride(intermediate) + c) =
      make_uint4(GatePair(g.x, u.x), GatePair(g.y, u.y), GatePair(g.z, u.z), GatePair(g.w, u.w));
}

}  // namespace

cudaError_t LaunchSwiGlu(const bf16* in, int64_t in_stride, int64_t intermediate, bf16* y, int rows,
                         cudaStream_t stream) {
  const dim3 grid((intermediate + 2047) / 2048, rows);
  return Launch(SwiGluKernel, grid, 256, 0, stream, 1, in, in_stride, intermediate, y);
}

}  // namespace sluice::cuda
