// The generic linear core on the device: S <- D S + k v^T, o = S^T q (arXiv 2312.06635, section 2,
// with the decays of its table 1), what comes before it (linear_front.h) and after it. All pointers
// are device memory.
//
// Heads: every output head reads one state, one query; every state one key, one value. Fewer of one
// kind than of another are shared by equal runs: output head h of `out_heads` takes query
// h / (out_heads / q_heads) and state h / (out_heads / state_heads), state s takes key
// s / (state_heads / k_heads).
#ifndef SLUICE_KERNELS_CUDA_LINEAR_H_
#define SLUICE_KERNELS_CUDA_LINEAR_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <span>

#include "kernels/cuda/mixer.h"
#include "kernels/cuda/step_meta.h"
#include "kernels/cuda/step_packer.h"

namespace sluice::cuda {

enum class LinearDecay : uint8_t {
  kNone,   // D = 1
  kConst,  // a number for each state
  kHead,   // a number for each token and state
  kKey,    // a number for each token, state and key channel
};

// One layer's core for one step. Front's rows are those of the step.
struct LinearArgs {
  const StepHeader* meta = nullptr;

  // q | k | v after everything that is local to a token: q (q_heads, dk) scaled, k (k_heads, dk),
  // v (v_heads, dv). Decode rows are read in fp32, prompt rows in bf16.
  const float* decode_front = nullptr;          // (decode rows, front_stride)
  const __nv_bfloat16* prompt_front = nullptr;  // (rows, front_stride)
  int64_t front_stride = 0;                     // a multiple of 8
  int64_t front_rows = 0;                       // of prompt_front, that can be read
  int32_t k_offset = 0, v_offset = 0;           // multiples of 8

  // log of the decay: kConst (state_heads), kHead (rows, state_heads), kKey (rows, state_heads *
  // dk).
  const float* log_decay = nullptr;
  // (rows, state_heads): a state's keys times this; null: 1. Mamba-2's dt (arXiv 2405.21060).
  const float* key_scale = nullptr;

  float* states = nullptr;       // S of this layer in slot 0: (state_heads, dk, dv)
  float* normalisers = nullptr;  // z <- D z + k of this layer in slot 0: (state_heads, dk); or null
  int64_t slot_stride = 0;       // floats

  LinearDecay decay = LinearDecay::kNone;
  int32_t q_heads = 0, k_heads = 0, v_heads = 0, state_heads = 0, out_heads = 0;
  int32_t dk = 0, dv = 0;  // multiples of 8 unless plain
  bool plain = false;      // heads of any width, an element at a time (linear_plain.cu)
};

enum class BackNorm : uint8_t { kNone, kRms, kLayer };
enum class BackGate : uint8_t { kNone, kRaw, kSilu, kSigmoid };

// From o to the input of the output projection: o / (q z + 1e-10), + skip * v, norm, gate.
struct LinearBack {
  const __nv_bfloat16* in = nullptr;  // (rows, in_stride): the input projection, for the gate
  int64_t in_stride = 0;
  int32_t gate_offset = 0;           // column of `in`
  const float* wide_gate = nullptr;  // (rows, out_heads * dv): the gate instead of `in`; or null
  BackGate gate = BackGate::kNone;
  bool gate_first = false;  // before the norm
  BackNorm norm = BackNorm::kNone;
  int32_t norm_span = 0;               // columns that are normed together; divides out_heads * dv
  const float* norm_weight = nullptr;  // (weight_width), repeated; null: 1
  const float* norm_bias = nullptr;    // likewise; null: 0
  int32_t weight_width = 0;            // a multiple of 8
  float eps = 0.0f;
  const float* skip = nullptr;  // (out_heads), or (out_heads * dv) if skip_channels; null: none
  bool skip_channels = false;
  __nv_bfloat16* out = nullptr;  // (rows, out_stride)
  int64_t out_stride = 0;
};

// Buffers in which the blocks of a decode row leave their results for the last of them, which does
// the row's end.
struct LinearDecodeBuffers {
  float* o = nullptr;             // (decode rows, out_heads * dv)
  float* denominators = nullptr;  // (decode rows, out_heads); used with normalisers
  int32_t* arrivals = nullptr;    // (decode rows), zeros before and after
};

// Decode rows [0, meta->num_decode): state, normaliser, and `back`.
cudaError_t LaunchLinearDecode(const LinearArgs& args, const LinearBack& back,
                               const LinearDecodeBuffers& buffers, int grid_rows,
                               cudaStream_t stream);
// Shared memory of a block; more than the device has: the shape is refused.
size_t LinearDecodeSharedBytes(const LinearArgs& args);

// ---- Prompts ----

// Buffers in which a wave's chunks leave their results for each other; chunk numbers count from the
// wave's first.
struct LinearBuffers {
  // For kKey as mixer.h says, with state heads for kv heads. Otherwise scores, and these three,
  // which lie as accumulators do (chunk_tiles.cuh), a tile of 64 columns of v after another:
  // carry (whole spans, state_heads, tiles, key_stride * 64), partial (chunks, out_heads, tiles,
  // kChunk * 64), and span_decay (whole spans, state_heads).
  ChunkBuffers chunk;
  // (chunks, state_heads, 2, kChunk): the decay from the chunk's beginning through each token, and
  // from after each token to the chunk's end, times its key scale.
  float* decays = nullptr;
  // These are for normalisers: q z of each token, and what each chunk adds to z, later z before it.
  float* denominators = nullptr;  // (rows, out_heads)
  float* key_sums = nullptr;      // (chunks, state_heads, dk)
};

// Core and `back` of the prompt rows [first, first + rows) of a step, whose chunks `waves` are.
// kKey takes the kernels of mixer.h where the others take those below.
cudaError_t LaunchLinearPrompts(const LinearArgs& args, const LinearBack& back,
                                const LinearBuffers& buffers, std::span<const ChunkRange> waves,
                                int first, int rows, cudaStream_t stream);

// A decay that a state's key channels share: kernels in this order, for one wave.

// scores, decays; denominators within chunks.
cudaError_t LaunchLinearScores(const LinearArgs& args, const LinearBuffers& buffers,
                               const ChunkRange& range, cudaStream_t stream);
// Computes the rest of the denominators, and the slots' z, for mixers with a normaliser.
cudaError_t LaunchLinearNormaliser(const LinearArgs& args, const LinearBuffers& buffers,
                                   const ChunkRange& range, cudaStream_t stream);
// carry of whole spans = what their own tokens add to the state; span_decay.
cudaError_t LaunchLinearSpanSums(const LinearArgs& args, const LinearBuffers& buffers,
                                 const ChunkRange& range, cudaStream_t stream);
// carry = the state that enters each whole span; slots = the state after the last.
cudaError_t LaunchLinearScan(const LinearArgs& args, const LinearBuffers& buffers,
                             const ChunkRange& range, cudaStream_t stream);
// out (rows, out_stride) = o; the slots' states after a span that is not whole.
cudaError_t LaunchLinearChunks(const LinearArgs& args, const LinearBuffers& buffers,
                               __nv_bfloat16* out, int64_t out_stride, const ChunkRange& range,
                               cudaStream_t stream);

// Core and `back` of plain layers: any decay, dk up to 512.
cudaError_t LaunchPlainDecode(const LinearArgs& args, const LinearBack& back,
                              const LinearDecodeBuffers& buffers, int grid_rows,
                              cudaStream_t stream);
cudaError_t LaunchPlainPrompts(const LinearArgs& args, const LinearBack& back,
                               const LinearBuffers& buffers, std::span<const ChunkRange> waves,
                               int first, int rows, cudaStream_t stream);
// The second half of each: `back` of what the first left in `buffers` and in place.
cudaError_t LaunchPlainDecodeBack(const LinearArgs& args, const LinearBack& back,
                                  const LinearDecodeBuffers& buffers, int grid_rows,
                                  cudaStream_t stream);
cudaError_t LaunchPlainBack(const LinearArgs& args, const LinearBack& back,
                            const LinearBuffers& buffers, int first, int rows, cudaStream_t stream);

// Any decay: `back` in place.
cudaError_t LaunchLinearBack(const LinearArgs& args, const LinearBack& back,
                             const LinearBuffers& buffers, int first, int rows,
                             cudaStream_t stream);

// The same layer as the kernels of mixer.h see it.
MixerLaunch AsMixerArgs(const LinearArgs& args, const LinearBack& back);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_LINEAR_H_
