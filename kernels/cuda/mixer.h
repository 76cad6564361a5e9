// The GLA token mixer on the device: what its kernels share. All pointers are device memory.
#ifndef SLUICE_KERNELS_CUDA_MIXER_H_
#define SLUICE_KERNELS_CUDA_MIXER_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/step_meta.h"
#include "kernels/cuda/step_packer.h"
#include "kernels/mixer_spec.h"

namespace sluice::cuda {

// One layer's mixer. A slot's state lies as kernels/state_table.h says, slots one after another.
struct MixerLaunch {
  const StepHeader* meta = nullptr;
  const __nv_bfloat16* in = nullptr;  // (rows, in_stride): q | k | v | low-rank gate | output gate
  int64_t in_stride = 0;
  const __nv_bfloat16* gate = nullptr;  // (kv_heads * dk, gate_stride)
  int64_t gate_stride = 0;
  const float* gate_bias = nullptr;  // (kv_heads * dk)
  // Prompts alone: (rows, kv_heads * dk), logs of the decays, instead of a gate; null: the gate's.
  const float* log_decay = nullptr;
  const float* conv_q = nullptr;  // (q_dim, taps)
  const float* conv_k = nullptr;
  const float* conv_v = nullptr;
  const float* head_norm = nullptr;  // (dv), null: no weight
  __nv_bfloat16* out = nullptr;      // (rows, out_stride)
  int64_t out_stride = 0;
  float* states = nullptr;  // of this layer in slot 0
  int64_t slot_stride = 0;  // floats
  int64_t tail_q = 0;       // of the layer's convolution tails, floats from `states`
  int64_t tail_k = 0;
  int64_t tail_v = 0;

  int32_t heads = 0, kv_heads = 0, dk = 0, dv = 0, rank = 0;
  int32_t taps = 0;                                                   // 0: no short convolution
  int32_t k_offset = 0, v_offset = 0, gate_offset = 0, g_offset = 0;  // columns of `in`
  bool output_gate = false;
  FeatureMap feature_map = FeatureMap::kIdentity;
  float scale = 1.0f;  // of q
  float min_log_decay2 = 0.0f;
  float eps = 0.0f;
};

// ---- Decode ----

// Decode rows [0, meta->num_decode): everything between the mixer's two projections in one kernel.
cudaError_t LaunchGlaDecode(const MixerLaunch& args, int grid_rows, cudaStream_t stream);
// Shared memory of a block; more than the device has: the shape is refused.
size_t GlaDecodeSharedBytes(const MixerLaunch& args);

// ---- Prompts: kernels in this order, for one wave of the step's chunks ----

// Buffers in which a step's prompt chunks leave their results for each other; chunk numbers count
// from `first_chunk`. Pointers may be null and strides are as the mixer that runs needs them.
struct ChunkBuffers {
  int32_t key_stride = 0;      // dk padded to a multiple of 64
  __nv_bfloat16* q = nullptr;  // (chunks, heads, kChunk, key_stride): q times its decay since the
                               // chunk's beginning
  __nv_bfloat16* k =
      nullptr;  // (chunks, kv_heads, kChunk, key_stride): k times its decay to the chunk's end
  __nv_bfloat16* scores = nullptr;  // (chunks, heads, kChunk, kChunk)
  float* decay = nullptr;           // (chunks, kv_heads, key_stride): the whole chunk's decay
  float* carry = nullptr;           // (whole spans, kv_heads, dk, dv)
  float* span_decay = nullptr;      // (whole spans, kv_heads, key_stride): the whole span's decay
  float* partial = nullptr;         // (rows, heads * dv) fp32; null unless dk is past one pass
  __nv_bfloat16* conv =
      nullptr;  // (rows, q_dim + k_dim + v_dim) after the short convolution; null without
  int64_t conv_stride = 0;
};

// conv = silu(short convolution of q, k, v).
cudaError_t LaunchShortConv(const MixerLaunch& args, const ChunkBuffers& buffers,
                            const ChunkRange& range, cudaStream_t stream);
// Moves the tails of the slots past the chunks.
cudaError_t LaunchShortConvTails(const MixerLaunch& args, const ChunkRange& range,
                                 cudaStream_t stream);
// q, k, scores, decay.
cudaError_t LaunchGlaScores(const MixerLaunch& args, const ChunkBuffers& buffers,
                            const ChunkRange& range, cudaStream_t stream);
// carry of whole spans = what their own tokens add to the state; span_decay.
cudaError_t LaunchGlaSpanSums(const MixerLaunch& args, const ChunkBuffers& buffers,
                              const ChunkRange& range, cudaStream_t stream);
// carry = the state that enters each whole span; slots = the state after the last.
cudaError_t LaunchGlaScan(const MixerLaunch& args, const ChunkBuffers& buffers,
                          const ChunkRange& range, cudaStream_t stream);
// out = o before norm and gate; the slots' states after a span that is not whole.
cudaError_t LaunchGlaChunks(const MixerLaunch& args, const ChunkBuffers& buffers,
                            const ChunkRange& range, cudaStream_t stream);
// out = RMSNorm per head * silu(gate), in place, for the step's rows [first, first + rows).
cudaError_t LaunchHeadNorm(const MixerLaunch& args, const ChunkBuffers& buffers, int first,
                           int rows, cudaStream_t stream);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_MIXER_H_
