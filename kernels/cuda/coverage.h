// Whether the kernels in this program run on a GPU.
#ifndef SLUICE_KERNELS_CUDA_COVERAGE_H_
#define SLUICE_KERNELS_CUDA_COVERAGE_H_

namespace sluice::cuda {

// On the thread's GPU, whose compute capability is major.minor.
bool HasCodeFor(int major, int minor);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_COVERAGE_H_
