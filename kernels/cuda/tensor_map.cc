#include "kernels/cuda/tensor_map.h"

namespace sluice::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, found through the runtime, so that no program links the driver.
Encode FindEncode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  return error == cudaSuccess && found == cudaDriverEntryPointSuccess
             ? reinterpret_cast<Encode>(function)
             : nullptr;
}

// A map of bf16 elements, innermost dimension first; strides in bytes of all but the first.
template <int kDimensions>
cudaError_t Make(const void* first, const cuuint64_t (&sizes)[kDimensions],
                 const cuuint64_t (&strides)[kDimensions - 1], const cuuint32_t (&box)[kDimensions],
                 CUtensorMap* map) {
  static const Encode encode = FindEncode();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint32_t step[] = {1, 1, 1};
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, kDimensions, const_cast<void*>(first), sizes,
             strides, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

cuuint64_t Size(int64_t size) { return static_cast<cuuint64_t>(size); }

}  // namespace

cudaError_t MakeTensorMap(const void* matrix, int64_t rows, int64_t cols, int box_rows,
                          CUtensorMap* map) {
  return Make<2>(matrix, {Size(cols), Size(rows)}, {Size(cols * 2)},
                 {64, static_cast<cuuint32_t>(box_rows)}, map);
}

cudaError_t MakeHeadsMap(const void* first, int64_t rows, int64_t stride, int heads, int width,
                         CUtensorMap* map) {
  return Make<3>(first, {Size(width), Size(heads), Size(rows)}, {Size(width * 2), Size(stride * 2)},
                 {64, 1, 64}, map);
}

}  // namespace sluice::cuda
