// The state that enters each whole span: S_in(p + 1) = diag(decay_p) S_in(p) + sums_p, from the
// slot's state on, elementwise. Sums and entering states share their place.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mixer.h"

namespace sluice::cuda {
namespace {

constexpr int kAhead = 4;  // spans whose loads are in flight together

__global__ void __launch_bounds__(256)
    GlaScanKernel(const __grid_constant__ MixerLaunch a, const __grid_constant__ ChunkBuffers b,
                  int first_scan) {
  WaitForPredecessor();
  const int64_t size = static_cast<int64_t>(a.dk) * a.dv;
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x) * 4;
  if (at >= size) return;
  const ScanMeta scan = MetaArray<ScanMeta>(a.meta, a.meta->scans)[first_scan + blockIdx.z];
  const int carry0 = MetaArray<SpanMeta>(a.meta, a.meta->spans)[scan.span].carry;
  const int key = static_cast<int>(at / a.dv),
            kv_head = blockIdx.y;  // dv is a multiple of 8: four columns share a row
  float4* slot =
      reinterpret_cast<float4*>(a.states + scan.slot * a.slot_stride + kv_head * size + at);
  float4 s = *slot;
  for (int first = 0; first < scan.spans; first += kAhead) {
    float4 sums[kAhead];
    float decay[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= scan.spans) break;
      const int64_t carry = static_cast<int64_t>(carry0 + first + i) * a.kv_heads + kv_head;
      sums[i] = *reinterpret_cast<const float4*>(b.carry + carry * size + at);
      decay[i] = b.span_decay[carry * b.key_stride + key];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= scan.spans) break;
      const int64_t carry = static_cast<int64_t>(carry0 + first + i) * a.kv_heads + kv_head;
      *reinterpret_cast<float4*>(b.carry + carry * size + at) = s;
      s.x = fmaf(decay[i], s.x, sums[i].x);
      s.y = fmaf(decay[i], s.y, sums[i].y);
      s.z = fmaf(decay[i], s.z, sums[i].z);
      s.w = fmaf(decay[i], s.w, sums[i].w);
    }
  }
  *slot = s;
}

}  // namespace

cudaError_t LaunchGlaScan(const MixerLaunch& args, const ChunkBuffers& buffers,
                          const ChunkRange& range, cudaStream_t stream) {
  if (range.scans == 0) return cudaSuccess;
  const int blocks = static_cast<int>((static_cast<int64_t>(args.dk) * args.dv / 4 + 255) / 256);
  return Launch(GlaScanKernel, dim3(blocks, args.kv_heads, range.scans), 256, 0, stream, 1, args,
                buffers, range.first_scan);
}

}  // namespace sluice::cuda
