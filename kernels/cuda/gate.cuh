// Elementwise parts of the GLA mixer (GLA of arXiv 2312.06635, section 4.4; feature maps as the
// checkpoint names them).
#ifndef SLUICE_KERNELS_CUDA_GATE_CUH_
#define SLUICE_KERNELS_CUDA_GATE_CUH_

#include "kernels/cuda/device.cuh"
#include "kernels/mixer_spec.h"

namespace sluice::cuda {

// log2 of a token's decay: max(logsigmoid(z) / 16, minimum) in units of log2. In (-inf, 0].
__device__ __forceinline__ float LogDecay2(float z, float minimum2) {
  const float y = z * kLog2E;
  const float log_sigmoid = fminf(y, 0.0f) - Log2(1.0f + Exp2(-fabsf(y)));
  return fmaxf(log_sigmoid * 0.0625f, minimum2);
}

__device__ __forceinline__ float LogSigmoid(float x) {
  return fminf(x, 0.0f) - log1pf(__expf(-fabsf(x)));
}

__device__ __forceinline__ float MapFeature(FeatureMap map, float x) {
  switch (map) {
    case FeatureMap::kIdentity:
      return x;
    case FeatureMap::kRelu:
      return fmaxf(x, 0.0f);
    case FeatureMap::kSigmoid:
      return 1.0f / (1.0f + Exp2(-x * kLog2E));
    case FeatureMap::kLogSigmoid:
      return LogSigmoid(x);
    case FeatureMap::kSilu:
      return Silu(x);
    case FeatureMap::kSquaredRelu: {
      const float r = fmaxf(x, 0.0f);
      return r * r;
    }
    case FeatureMap::kGeluTanh:
      return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
  }
  return x;
}

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_GATE_CUH_
