// A mixer whose state is a matrix for each head, on the device: front, core and back for one layer
// of a step. The core is Core::kLinear's or Core::kDelta's.
#ifndef SLUICE_KERNELS_CUDA_LINEAR_MIXER_H_
#define SLUICE_KERNELS_CUDA_LINEAR_MIXER_H_

#include <cuda_runtime_api.h>

#include "kernels/cuda/delta.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/linear_front.h"
#include "kernels/cuda/linear_maps.h"
#include "kernels/cuda/linear_workspace.h"
#include "kernels/ops.h"
#include "kernels/state_table.h"

namespace sluice::cuda {

// The mixer's end. `wide_gate`: what a low-rank output gate comes to.
LinearBack MakeBack(const MixArgs& args, const float* wide_gate);

class LinearMixer {
 public:
  // The places of a layer's parts of the states.
  struct Slots {
    char* first = nullptr;  // slot 0
    int64_t bytes = 0;      // of a slot
    const StateTable* table = nullptr;
  };

  // `chunk`: for mixers of this spec. All that is given outlives it.
  LinearMixer(const MixArgs& args, const Slots& slots, const LinearWorkspace& work,
              const ChunkBuffers& chunk, const StepHeader* meta, cudaStream_t stream);

  // Decode rows [0, decode), some of which the step may lack, then its `prompts` prompt rows, whose
  // chunks `waves` are, `chunks` in all.
  cudaError_t Run(int decode, std::span<const ChunkRange> waves, int chunks, int prompts);

 private:
  void SetFront(const Slots& slots);
  void SetMaps();
  void SetCore(const Slots& slots);
  // Maps of whole heads, and the low-rank gate, of the step's rows.
  cudaError_t MapHeads(int rows);
  // Core::kDelta: what its models do behind front, of the step's rows.
  cudaError_t PrepareDelta(int rows);
  DeltaArgs Delta() const;

  const MixArgs& mix_;
  const MixerSpec& spec_;
  const MixerWeights& weights_;
  const LinearWorkspace& work_;
  const StepHeader* const meta_;
  const cudaStream_t stream_;
  FrontArgs front_;
  MapArgs maps_[2];  // q, k
  LinearArgs core_;
  LinearBack back_;
  LinearBuffers buffers_;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_LINEAR_MIXER_H_
