#include "kernels/cuda/device.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/row_ops.h"

namespace sluice::cuda {
namespace {

__device__ __forceinline__ float ActOf(Act act, float x) {
  switch (act) {
    case Act::kIdentity:
      return x;
    case Act::kSilu:
      return Silu(x);
    case Act::kSigmoid:
      return 1.0f / (1.0f + Exp2(-x * kLog2E));
    case Act::kSquaredRelu:
      return x < 0 ? 0.0f : x * x;
  }
  return x;
}

__device__ __forceinline__ float BiasOf(const float* bias, int c) {
  return bias == nullptr ? 0.0f : bias[c];
}

// Columns c and c + 1.
__device__ __forceinline__ uint32_t GatePair(const GluArgs& a, uint32_t gate, uint32_t up, int c) {
  const float low = ActOf(a.act, LowBf16(gate) + BiasOf(a.gate_bias, c));
  const float high = ActOf(a.act, HighBf16(gate) + BiasOf(a.gate_bias, c + 1));
  return PackBf16(low * (LowBf16(up) + BiasOf(a.up_bias, c)),
                  high * (HighBf16(up) + BiasOf(a.up_bias, c + 1)));
}

// A thread makes 8 columns of y.
__global__ void __launch_bounds__(256) GluKernel(const __grid_constant__ GluArgs a) {
  WaitForPredecessor();
  const int c = (blockIdx.x * 256 + threadIdx.x) * 8;
  if (c >= a.intermediate) return;
  const bf16* gate =
      a.in + blockIdx.y * a.in_stride + (c / kGateUpBlock) * 2 * kGateUpBlock + c % kGateUpBlock;
  const uint4 g = LoadStream(gate), u = LoadStream(gate + kGateUpBlock);
  // The matrix's padding makes zeros past `intermediate`, as y's padding wants them, and so does
  // that of the biases.
  *reinterpret_cast<uint4*>(a.y + blockIdx.y * Stride(a.intermediate) + c) =
      make_uint4(GatePair(a, g.x, u.x, c), GatePair(a, g.y, u.y, c + 2),
                 GatePair(a, g.z, u.z, c + 4), GatePair(a, g.w, u.w, c + 6));
}

}  // namespace

cudaError_t LaunchGlu(const GluArgs& args, int rows, cudaStream_t stream) {
  const dim3 grid((args.intermediate + 2047) / 2048, rows);
  return Launch(GluKernel, grid, 256, 0, stream, 1, args);
}

}  // namespace sluice::cuda
