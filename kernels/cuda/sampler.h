// Scores and samples rows of logits where they lie, so that a step sends tokens to the host and no
// logits. The order of the filters and the meaning of each are ops.h's; the same as the CPU's
// sampler.
#ifndef SLUICE_KERNELS_CUDA_SAMPLER_H_
#define SLUICE_KERNELS_CUDA_SAMPLER_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/step_meta.h"

namespace sluice::cuda {

struct SamplerArgs {
  const StepHeader* meta = nullptr;
  int first = 0;                  // logit row of the step that row 0 of `logits` belongs to
  const float* logits = nullptr;  // (rows, stride)
  int64_t stride = 0;
  float* adjusted = nullptr;  // (rows, stride): work space, null where a row fits shared memory
  int32_t vocab = 0;
  int32_t sampled = 0;              // tokens from here on are never drawn
  int32_t* last_sampled = nullptr;  // (slots)
  uint32_t* counts = nullptr;       // (tables, vocab): how often generated, and kSeenInPrompt
};

inline constexpr uint32_t kSeenInPrompt = uint32_t{1} << 31;

// True if a row of this many logits needs `adjusted`.
bool SamplerNeedsScratch(int32_t vocab);

cudaError_t LaunchSampler(const SamplerArgs& args, int grid_rows, cudaStream_t stream);

// Marks the prompt's tokens (count, device memory) in a zeroed table.
cudaError_t LaunchMarkSeen(uint32_t* table, const int32_t* tokens, int count, int32_t vocab,
                           cudaStream_t stream);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_SAMPLER_H_
