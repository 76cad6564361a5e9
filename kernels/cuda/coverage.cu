#include <cuda_runtime.h>

#include "kernels/cuda/coverage.h"

namespace sluice::cuda {
namespace {

__global__ void Nothing() {}

}  // namespace

bool HasCodeFor(int major, int minor) {
  // The matrix kernels are Hopper's so far.
  if (major != 9 || minor != 0) return false;
  cudaFuncAttributes attributes;
  const bool there = cudaFuncGetAttributes(&attributes, Nothing) == cudaSuccess;
  (void)cudaGetLastError();  // "no kernel image" stays behind otherwise
  return there;
}

}  // namespace sluice::cuda
