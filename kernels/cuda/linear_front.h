// The stage before the generic linear core: from columns of the input projection to a row's q, k, v
// and log decay. All pointers are device memory.
#ifndef SLUICE_KERNELS_CUDA_LINEAR_FRONT_H_
#define SLUICE_KERNELS_CUDA_LINEAR_FRONT_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/step_meta.h"
#include "kernels/cuda/step_packer.h"
#include "kernels/mixer_spec.h"

namespace sluice::cuda {

// Columns of the input projection that become heads of q, of k or of v.
struct FrontStream {
  int32_t column = 0;  // of `in`, a multiple of 8 unless FrontArgs::plain
  int32_t heads = 0;
  int32_t width = 0;                 // of a head, a multiple of 8 unless plain
  int32_t to = 0;                    // its first column of front's row
  int32_t to_width = 0;              // of a head there
  const float* conv = nullptr;       // (heads * width, taps); null: no convolution
  const float* conv_bias = nullptr;  // (heads * width); null: none
  int64_t tail = 0;                  // floats from `states` to the slot's (taps - 1, heads * width)
  FeatureMap map = FeatureMap::kIdentity;
  Rope rope = Rope::kNone;
  float scale = 1.0f;
};

struct FrontArgs {
  const StepHeader* meta = nullptr;
  const __nv_bfloat16* in = nullptr;  // (rows, in_stride)
  int64_t in_stride = 0;
  FrontStream streams[3];  // q, k, v
  bool plain = false;      // a channel at a time, of heads of any width
  int32_t taps = 0;
  bool conv_silu = false;
  float log_rope_theta = 0.0f;   // Rope::kHalves
  const float* theta = nullptr;  // Rope::kLrpe: (q heads, width)

  GateMap gate = GateMap::kNone;
  int32_t gate_column = 0;  // of `in`
  int32_t state_heads = 0;
  const float* gate_bias = nullptr;    // kMamba2, kGla, kGatedDelta: (state_heads); null: 0
  const float* a_log = nullptr;        // kMamba2, kGatedDelta: (state_heads)
  const float* lower_bound = nullptr;  // kHgrn2: (k heads * width); null: 0
  float dt_min = 0.0f, dt_max = 0.0f;  // kMamba2
  bool clamp_log_gate = false;         // kGla
  float log_gate_min = 0.0f;
  int64_t log_sum = 0;      // kLightNet: floats from `states` to the slot's (k heads * width)
  int32_t beta_column = 0;  // of `in`, where `beta` is wanted: beta_max sigmoid(its column)
  float beta_max = 1.0f;

  float* states = nullptr;  // of this layer in slot 0
  int64_t slot_stride = 0;  // floats

  // Out, as LinearArgs takes them.
  float* decode_front = nullptr;
  __nv_bfloat16* prompt_front = nullptr;
  float* wide_prompt_front = nullptr;  // prompt rows in fp32 instead; or null
  int64_t front_stride = 0;
  float* log_decay = nullptr;
  float* key_scale = nullptr;
  // DeltaArgs takes these: (rows, state_heads); null: not wanted.
  float* beta = nullptr;
  float* loss = nullptr;      // kGatedDelta
  float* log_sums = nullptr;  // kLightNet: scratch (chunks, k heads * width)
};

// Decode rows [0, meta->num_decode); moves the convolution's tails and kLightNet's sums.
cudaError_t LaunchFrontDecode(const FrontArgs& args, int grid_rows, cudaStream_t stream);
// The rows of `chunks` chunks of the step from its first on, which is all of them; likewise.
cudaError_t LaunchFrontPrompts(const FrontArgs& args, int chunks, cudaStream_t stream);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_LINEAR_FRONT_H_
