#include "kernels/cuda/device.cuh"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/row_ops.h"

namespace sluice::cuda {
namespace {

__global__ void __launch_bounds__(256)
    EmbedKernel(const StepHeader* meta, const bf16* table, int vocab, int hidden, float scale,
                const int32_t* last_sampled, float* x) {
  WaitForPredecessor();
  const int row = blockIdx.x;
  if (row >= meta->num_rows) return;
  int token;
  if (row < meta->num_decode) {
    const RowMeta decode = MetaArray<RowMeta>(meta, meta->rows)[row];
    token = decode.token == kLastSampled ? last_sampled[decode.slot] : decode.token;
  } else {
    token = MetaArray<int32_t>(meta, meta->tokens)[row - meta->num_decode];
  }
  // A slot in which nothing was sampled because its logits were not finite.
  token = min(max(token, 0), vocab - 1);
  const int64_t stride = Stride(hidden);
  for (int c = threadIdx.x * 4; c < stride; c += blockDim.x * 4) {
    const uint2 v = *reinterpret_cast<const uint2*>(table + token * stride + c);
    *reinterpret_cast<float4*>(x + row * stride + c) = make_float4(
        scale * LowBf16(v.x), scale * HighBf16(v.x), scale * LowBf16(v.y), scale * HighBf16(v.y));
  }
}

}  // namespace

cudaError_t LaunchEmbed(const StepHeader* meta, const bf16* table, int64_t vocab, int64_t hidden,
                        float scale, const int32_t* last_sampled, float* x, int grid_rows,
                        cudaStream_t stream) {
  return Launch(EmbedKernel, grid_rows, 256, 0, stream, 1, meta, table, vocab, hidden, scale,
                last_sampled, x);
}

}  // namespace sluice::cuda
