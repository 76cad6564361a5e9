// The softmax core on the device, o = sum_s softmax_s(q k_s) v_s over the tokens that a row sees,
// with the stage before it: norm, position and scale of queries and keys. All pointers are device
// memory.
//
// Keys and values are bf16. Those of tokens before the step are in pages of kPageTokens tokens, or
// in a slot's ring of the last `window` tokens; those of the step's prompts are in `front`, and
// are kept when the step's rows have been through. A row takes the blocks of kPageTokens keys in
// the order of their absolute positions, so its bits depend on nothing else.
#ifndef SLUICE_KERNELS_CUDA_SOFTMAX_H_
#define SLUICE_KERNELS_CUDA_SOFTMAX_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/linear.h"
#include "kernels/cuda/step_meta.h"
#include "kernels/state_table.h"

namespace sluice::cuda {

// A decode row's key blocks are shared out among so many parts by their numbers, counted from the
// sequence's first token; the parts are then merged in order.
inline constexpr int kSoftmaxParts = 16;
// The widest head, of keys and of values.
inline constexpr int32_t kMostHeadWidth = 512;

struct SoftmaxArgs {
  const StepHeader* meta = nullptr;
  const __nv_bfloat16* in = nullptr;  // (rows, in_stride), columns of q, k and v
  int64_t in_stride = 0;
  int32_t q_column = 0, k_column = 0, v_column = 0;
  int32_t q_heads = 0, kv_heads = 0, dk = 0, dv = 0;
  int64_t window = 0;  // 0: all

  // The front.
  const float* q_norm = nullptr;  // (dk); null: none
  const float* k_norm = nullptr;
  float norm_eps = 0.0f;
  const float* theta = nullptr;  // (rope_dims / 2)
  int32_t rope_dims = 0;         // 0: no positions
  float rope_divisor = 1.0f, rope_scale = 1.0f;
  float scale = 1.0f;              // of scores
  __nv_bfloat16* front = nullptr;  // (rows, front_stride): q | k | v, each head after another
  int64_t front_stride = 0;        // a multiple of 8

  // A page holds rows of page_row elements a token of keys, and then of values; a slot's ring
  // (window, kv_heads * dk) and (window, kv_heads * dv) in fp32, of bf16's values.
  __nv_bfloat16* pages = nullptr;      // of this layer's keys in page 0; null with a window
  int64_t page_stride = 0;             // elements
  int64_t key_row = 0, value_row = 0;  // elements of a token's keys and values in a page
  int64_t values_in_page = 0;          // elements from keys to values
  float* ring_keys = nullptr;          // of slot 0; null without a window
  float* ring_values = nullptr;
  int64_t slot_stride = 0;  // floats

  // (decode rows, kSoftmaxParts, q_heads, dv + 2): sums of values, their largest score, the sum of
  // weights.
  float* parts = nullptr;
};

// Rows that decode, then all rows of `chunks` chunks: q, k and v into `front`.
cudaError_t LaunchSoftmaxFront(const SoftmaxArgs& args, int decode, int chunks,
                               cudaStream_t stream);
// Decode rows [0, meta->num_decode): keeps their keys and values, and leaves o in `o` (rows,
// q_heads * dv).
cudaError_t LaunchSoftmaxDecode(const SoftmaxArgs& args, float* o, int grid_rows,
                                cudaStream_t stream);
// The rows of all chunks of a step: leaves o in `out` (rows, out_stride), then keeps their keys and
// values.
cudaError_t LaunchSoftmaxPrompts(const SoftmaxArgs& args, __nv_bfloat16* out, int64_t out_stride,
                                 int chunks, cudaStream_t stream);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_SOFTMAX_H_
