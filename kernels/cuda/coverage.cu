#include <cuda_runtime.h>

#include "kernels/cuda/coverage.h"
#include "kernels/cuda/device.cuh"

namespace sluice::cuda {
namespace {

__device__ int hopper = SLUICE_HOPPER;

__global__ void Nothing() {}

bool LoadedCodeIsHoppers() {
  int value = 0;
  const bool read = cudaMemcpyFromSymbol(&value, hopper, sizeof(value)) == cudaSuccess;
  (void)cudaGetLastError();
  return read && value == 1;
}

}  // namespace

bool HasCode() {
  cudaFuncAttributes attributes;
  const bool there = cudaFuncGetAttributes(&attributes, Nothing) == cudaSuccess;
  (void)cudaGetLastError();  // "no kernel image" stays behind otherwise
  return there;
}

bool HasHopperCode() {
  static const bool hoppers = LoadedCodeIsHoppers();
  return hoppers;
}

}  // namespace sluice::cuda
