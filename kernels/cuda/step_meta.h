// The host's description of a step for the kernels: one block of plain data, uploaded before the
// step's first kernel. Every array is found by its offset in the header, so that a captured graph
// holds nothing but the block's address.
#ifndef SLUICE_KERNELS_CUDA_STEP_META_H_
#define SLUICE_KERNELS_CUDA_STEP_META_H_

#include <cstdint>

#include "kernels/step_rows.h"

namespace sluice::cuda {

inline constexpr int kChunk = 64;  // tokens that the chunkwise form takes at once
inline constexpr int kSpan =
    512;  // tokens between states that are computed by the scan: the prompt grid
inline constexpr int kSpanChunks = kSpan / kChunk;

struct RowMeta {  // a decode row
  int32_t slot;
  int32_t token;     // kLastSampled: read from the slot
  int64_t position;  // in its sequence
  int32_t pages;     // offset in bytes from the header: int32_t, the sequence's pages
  int32_t pad;
};

struct ChunkMeta {  // up to kChunk consecutive tokens of a prompt
  int32_t row;      // first, of the step
  int32_t tokens;   // valid ones, in [1, kChunk]
  int32_t slot;
  int32_t offset;          // tokens of the segment, in this step, before this chunk
  int32_t last;            // 1: the segment ends with it
  int32_t pages;           // as RowMeta's
  int64_t position;        // of the first, in its sequence
  int32_t segment_tokens;  // of the segment, in this step
  int32_t pad;
};

struct SpanMeta {  // up to kSpanChunks chunks: what one block takes through the recurrence
  int32_t chunk;   // first
  int32_t chunks;
  int32_t slot;
  int32_t carry;  // index of the carried state that enters this (whole) span; -1: the slot's, which
                  // is then updated
};

struct ScanMeta {  // consecutive whole spans of one segment
  int32_t slot;
  int32_t span;  // first; the spans' carries are consecutive too
  int32_t spans;
  int32_t pad;
};

struct LogitMeta {
  int32_t row;
  int32_t slot;
  int32_t target;
  int32_t alternatives;
  uint64_t seed;
  uint64_t position;
  uint32_t sequence;
  int32_t counts;
  int32_t bias;  // offset of the first in the block's list
  int32_t num_bias;
  int32_t banned;
  int32_t num_banned;
  int32_t pad[2];
  SamplingConfig sampling;  // 32 bytes
};

struct StepHeader {
  int32_t num_decode;
  int32_t num_rows;
  int32_t num_logits;
  int32_t rows;    // offsets in bytes from the header: RowMeta (num_decode)
  int32_t tokens;  // int32_t (num_rows - num_decode): the prompts' tokens, in the order of rows
  int32_t logits;  // LogitMeta (num_logits)
  int32_t chunks;  // ChunkMeta
  int32_t spans;   // SpanMeta
  int32_t scans;   // ScanMeta
  int32_t biases;  // TokenBias
  int32_t banned;  // int32_t
  int32_t pad;
  LogitResult* results;  // (num_logits), in host memory that the device can write
};

template <class T>
#ifdef __CUDACC__
__host__ __device__
#endif
    inline const T*
    MetaArray(const StepHeader* header, int32_t offset) {
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(header) + offset);
}

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_STEP_META_H_
