// Which of this program's kernels run on a GPU.
#ifndef SLUICE_KERNELS_CUDA_COVERAGE_H_
#define SLUICE_KERNELS_CUDA_COVERAGE_H_

namespace sluice::cuda {

// Whether there are kernels for the thread's GPU.
bool HasCode();

// Whether they are Hopper's own, or those that every GPU from sm_80 up runs. Of the GPU that the
// thread has when this is first called.
bool HasHopperCode();

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_COVERAGE_H_
