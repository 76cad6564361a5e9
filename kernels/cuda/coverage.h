// Tells which of this program's kernels run on a GPU.
#ifndef SLUICE_KERNELS_CUDA_COVERAGE_H_
#define SLUICE_KERNELS_CUDA_COVERAGE_H_

namespace sluice::cuda {

// True if there are kernels for the thread's GPU.
bool HasCode();

// True if the kernels are Hopper's own; false for those that every GPU from sm_80 up runs. The
// answer is that for the GPU that the thread has when this is first called.
bool HasHopperCode();

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_COVERAGE_H_
