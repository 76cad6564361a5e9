// Finds the keys and values of one sequence by the positions of their tokens.
#ifndef SLUICE_KERNELS_CUDA_SOFTMAX_KEYS_CUH_
#define SLUICE_KERNELS_CUDA_SOFTMAX_KEYS_CUH_

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/softmax.h"

namespace sluice::cuda {

// A head's keys or values at one position: one of both.
struct HeadAt {
  const bf16* narrow = nullptr;
  const float* wide = nullptr;  // a ring's, of bf16's values

  __device__ __forceinline__ float At(int i) const {
    return narrow != nullptr ? __bfloat162float(narrow[i]) : wide[i];
  }
  // Elements [i, i + 8), which are 16-byte aligned.
  __device__ __forceinline__ uint4 EightAt(int i) const {
    if (narrow != nullptr) return *reinterpret_cast<const uint4*>(narrow + i);
    const float4 a = *reinterpret_cast<const float4*>(wide + i),
                 b = *reinterpret_cast<const float4*>(wide + i + 4);
    return make_uint4(PackBf16(a.x, a.y), PackBf16(a.z, a.w), PackBf16(b.x, b.y),
                      PackBf16(b.z, b.w));
  }
};

// One sequence's keys and values of one head.
class Keys {
 public:
  // `pages`: offset of the sequence's pages in the step's block. Positions from `kept` on are the
  // step's rows from `row` on.
  __device__ Keys(const SoftmaxArgs& a, int slot, int pages, int64_t kept, int64_t row, int head)
      : a_(a),
        slot_(slot),
        pages_(MetaArray<int32_t>(a.meta, pages)),
        kept_(kept),
        row_(row),
        head_(head) {}

  __device__ __forceinline__ HeadAt KeyAt(int64_t position) const {
    HeadAt at;
    if (position >= kept_) {
      at.narrow = a_.front + (row_ + position - kept_) * a_.front_stride + a_.q_heads * a_.dk +
                  head_ * a_.dk;
    } else if (a_.pages != nullptr) {
      at.narrow = InPage(position) + position % kPageTokens * a_.key_row + head_ * a_.dk;
    } else {
      at.wide = a_.ring_keys + slot_ * a_.slot_stride +
                position % a_.window * (a_.kv_heads * a_.dk) + head_ * a_.dk;
    }
    return at;
  }
  __device__ __forceinline__ HeadAt ValueAt(int64_t position) const {
    HeadAt at;
    if (position >= kept_) {
      at.narrow = a_.front + (row_ + position - kept_) * a_.front_stride +
                  (a_.q_heads + a_.kv_heads) * a_.dk + head_ * a_.dv;
    } else if (a_.pages != nullptr) {
      at.narrow = InPage(position) + a_.values_in_page + position % kPageTokens * a_.value_row +
                  head_ * a_.dv;
    } else {
      at.wide = a_.ring_values + slot_ * a_.slot_stride +
                position % a_.window * (a_.kv_heads * a_.dv) + head_ * a_.dv;
    }
    return at;
  }

 private:
  __device__ __forceinline__ const bf16* InPage(int64_t position) const {
    return a_.pages + pages_[position / kPageTokens] * a_.page_stride;
  }

  const SoftmaxArgs& a_;
  const int slot_;
  const int32_t* const pages_;
  const int64_t kept_, row_;
  const int head_;
};

// The first position that the token at `position` sees.
__device__ __forceinline__ int64_t FirstSeen(const SoftmaxArgs& a, int64_t position) {
  return a.window == 0 || position < a.window ? 0 : position - a.window + 1;
}

// Writes the step's row `row` where its token's keys and values are kept, by `threads` threads of
// which the caller is number `thread`.
__device__ __forceinline__ void KeepRow(const SoftmaxArgs& a, int slot, int pages, int64_t position,
                                        int64_t row, int thread, int threads) {
  const int keys = a.kv_heads * a.dk, values = a.kv_heads * a.dv;
  const bf16* from = a.front + row * a.front_stride + a.q_heads * a.dk;
  if (a.pages != nullptr) {
    const int32_t page = MetaArray<int32_t>(a.meta, pages)[position / kPageTokens];
    bf16* to = a.pages + page * a.page_stride;
    bf16* const to_keys = to + position % kPageTokens * a.key_row;
    bf16* const to_values = to + a.values_in_page + position % kPageTokens * a.value_row;
    for (int i = thread; i < keys; i += threads) to_keys[i] = from[i];
    for (int i = thread; i < values; i += threads) to_values[i] = from[keys + i];
    return;
  }
  float* const to_keys = a.ring_keys + slot * a.slot_stride + position % a.window * keys;
  float* const to_values = a.ring_values + slot * a.slot_stride + position % a.window * values;
  for (int i = thread; i < keys; i += threads) to_keys[i] = __bfloat162float(from[i]);
  for (int i = thread; i < values; i += threads) to_values[i] = __bfloat162float(from[keys + i]);
}

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_SOFTMAX_KEYS_CUH_
