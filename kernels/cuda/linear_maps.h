// Feature maps of whole heads, linear_attn's: products with a matrix, softmax, products of rolled
// elements, and sums that queries or keys are divided by. All pointers are device memory.
#ifndef SLUICE_KERNELS_CUDA_LINEAR_MAPS_H_
#define SLUICE_KERNELS_CUDA_LINEAR_MAPS_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/step_meta.h"
#include "kernels/mixer_spec.h"

namespace sluice::cuda {

// The number of products that the map begins with; kProduct has two.
inline int MapMatrices(FeatureMap map) {
  return map == FeatureMap::kProduct                               ? 2
         : map == FeatureMap::kT2r || map == FeatureMap::kHedgehog ? 1
                                                                   : 0;
}

// q or k of all rows of a step.
struct MapArgs {
  const StepHeader* meta = nullptr;
  const __nv_bfloat16* in = nullptr;  // (rows, in_stride)
  int64_t in_stride = 0;
  int32_t column = 0, heads = 0, width = 0;  // of `in`, multiples of 8 unless plain
  bool plain = false;                        // products an element at a time
  FeatureMap map = FeatureMap::kIdentity;
  QkNorm norm = QkNorm::kNone;
  float scale = 1.0f;

  const __nv_bfloat16* matrix[2] = {};  // (width, matrix_stride), one for all heads
  int64_t matrix_stride = 0;
  const float* bias[2] = {};  // (width); null: 0
  float* products = nullptr;  // scratch (rows, heads, matrices, width)

  // Out: decode rows in fp32, prompt rows in bf16.
  float* decode_front = nullptr;
  __nv_bfloat16* prompt_front = nullptr;
  int64_t front_stride = 0;
  int32_t to = 0, to_width = 0;  // column of the first head, width of a mapped head
};

// Rows [0, grid_rows) of the step; those that are more than it has are left alone.
cudaError_t LaunchLinearMaps(const MapArgs& args, int grid_rows, cudaStream_t stream);
// The widest head that it takes.
inline constexpr int32_t kMostMapWidth = 1024;

// A gate that goes through a matrix: out = x W^T + bias of columns of the input projection.
struct GateProduct {
  const StepHeader* meta = nullptr;
  const __nv_bfloat16* in = nullptr;  // (rows, in_stride)
  int64_t in_stride = 0;
  int32_t column = 0, width = 0;          // multiples of 8 unless plain
  bool plain = false;                     // an element at a time
  const __nv_bfloat16* matrix = nullptr;  // (out_width, matrix_stride)
  int64_t matrix_stride = 0;
  const float* bias = nullptr;  // (out_width); null: 0
  float* out = nullptr;         // (rows, out_width)
  int32_t out_width = 0;
};
cudaError_t LaunchGateProduct(const GateProduct& args, int grid_rows, cudaStream_t stream);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_LINEAR_MAPS_H_
