// A plain copy kernel: the bandwidth that the other kernels are held against.
#ifndef SLUICE_TESTS_BENCH_CUDA_COPY_H_
#define SLUICE_TESTS_BENCH_CUDA_COPY_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace sluice::cuda {

// `bytes`: a multiple of 64 KiB.
cudaError_t LaunchCopy(const void* from, void* to, int64_t bytes, cudaStream_t stream);

}  // namespace sluice::cuda

#endif  // SLUICE_TESTS_BENCH_CUDA_COPY_H_
