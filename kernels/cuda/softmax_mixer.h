// A mixer of Core::kSoftmax on the device: front, core and back for one layer of a step.
#ifndef SLUICE_KERNELS_CUDA_SOFTMAX_MIXER_H_
#define SLUICE_KERNELS_CUDA_SOFTMAX_MIXER_H_

#include <cuda_runtime_api.h>

#include "kernels/cuda/linear_mixer.h"
#include "kernels/cuda/linear_workspace.h"
#include "kernels/cuda/page_store.h"
#include "kernels/cuda/softmax.h"
#include "kernels/ops.h"

namespace sluice::cuda {

class SoftmaxMixer {
 public:
  // All that is given outlives it.
  SoftmaxMixer(const MixArgs& args, const LinearMixer::Slots& slots, const PageStore& pages,
               const LinearWorkspace& work, const StepHeader* meta, cudaStream_t stream);

  // Decode rows [0, decode), some of which the step may lack, then its `prompts` prompt rows in
  // `chunks` chunks.
  cudaError_t Run(int decode, int chunks, int prompts);

 private:
  const MixArgs& mix_;
  const LinearWorkspace& work_;
  const cudaStream_t stream_;
  SoftmaxArgs core_;
  LinearArgs layer_;  // as the back sees it
  LinearBack back_;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_SOFTMAX_MIXER_H_
